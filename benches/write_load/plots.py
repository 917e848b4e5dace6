"""Draws what `make bench` has measured: reads FOLDER/results.json and writes one SVG and one PNG a question beside it.

Usage: plots.py FOLDER
"""

import json
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator  # noqa: E402

WAYS = {
    "nothing": ("no capture", "#9a9a9a"),
    "recvlogical": ("pg_recvlogical", "#5b8db8"),
    "daemon": ("lantern-cli", "#d9822b"),
    "notify": ("trigger, NOTIFY", "#7b5ea7"),
    "queue": ("trigger, queue table", "#4f9d69"),
}
EMBEDDING = ("daemon", "notify", "queue")
STATEMENTS = {
    "insert": "INSERT",
    "update_text": "UPDATE of\nthe text",
    "update_other": "UPDATE of\nanother column",
    "bulk_insert": "INSERT of\n100 rows",
    "copy": "COPY of\n500 rows",
}

plt.rcParams.update({
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    # The same picture gives the same file.
    "svg.hashsalt": "lantern",
})


class Folder:
    """Where the results are and the plots go."""

    def __init__(self, path):
        self.path = Path(path)
        self.results = json.loads((self.path / "results.json").read_text())

    def save(self, name, figure, title, note=""):
        """Adds the title and where the figures come from, and writes both files."""
        about = self.results["about"]
        height = figure.get_figheight()
        figure.text(0.01, 1 - 0.08 / height, title, ha="left", va="top", fontsize=12, fontweight="bold")
        lines = [note] if note else []
        lines.append("%s, %s · %s · texts: %s" % (about["date"], about["command"], about["machine"], about["texts"]))
        lines.append(about["versions"])
        figure.text(0.01, 0.06 / height, "\n".join(lines), ha="left", va="bottom", fontsize=7, color="#555555")
        figure.tight_layout(rect=(0, (0.1 + 0.13 * len(lines)) / height, 1, 1 - 0.3 / height))
        figure.savefig(self.path / (name + ".svg"), metadata={"Date": None})
        figure.savefig(self.path / (name + ".png"), dpi=150, metadata={"Software": None})
        plt.close(figure)


def median(values):
    values = list(values)
    return statistics.median(values) if values else float("nan")


def of(entries, **wanted):
    return [row for row in entries if all(row[name] == value for name, value in wanted.items())]


def plain(axis):
    """Ticks of a logarithmic axis as people write numbers."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: "%g" % value if value < 1e4 else "{:,.0f}".format(value)))
    axis.set_minor_formatter(NullFormatter())


def ways_legend(axes, **arguments):
    axes.legend(fontsize=8, **arguments)


def relative_rates(runs, statement, clients, way):
    """Transactions a second against no capture, each within one round."""
    bare = {run["round"]: run["tps"] for run in of(runs, statement=statement, clients=clients, way="nothing")}
    return [run["tps"] / bare[run["round"]] for run in of(runs, statement=statement, clients=clients, way=way)]


def user_rates(folder, runs):
    """One picture that says it all: what is left of the user's throughput."""
    all_clients = sorted({run["clients"] for run in runs if run["statement"] == "insert"})
    clients = 8 if 8 in all_clients else all_clients[-1]
    ways = [way for way in WAYS if way != "nothing"]
    figure, axes = plt.subplots(figsize=(8, 4.2))
    for position, statement in enumerate(STATEMENTS):
        here = sorted({run["clients"] for run in of(runs, statement=statement)})
        mine = clients if clients in here else here[-1]
        for number, way in enumerate(ways):
            ratios = relative_rates(runs, statement, mine, way)
            middle = median(ratios)
            x = position + (number - 1.5) * 0.2
            axes.bar(x, middle, 0.19, color=WAYS[way][1], label=WAYS[way][0] if position == 0 else None)
            axes.plot([x, x], [min(ratios), max(ratios)], color="#333333", linewidth=0.8)
            axes.text(x, max(ratios) + 0.015, "%.2f" % middle, ha="center", va="bottom", fontsize=7)
    labels = []
    for statement, name in STATEMENTS.items():
        here = sorted({run["clients"] for run in of(runs, statement=statement)})
        labels.append("%s\n%d clients" % (name, clients if clients in here else here[-1]))
    axes.axhline(1, color="#9a9a9a", linewidth=1, linestyle="--")
    axes.set_xticks(range(len(STATEMENTS)), labels)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("transactions a second,\nas a share of those without capture")
    axes.set_ylim(0, max(1.25, axes.get_ylim()[1] * 1.18))
    ways_legend(axes, ncols=4, loc="upper left")
    folder.save("user-rates", figure, "Throughput of users while changes are captured",
                "Inference off, so that only the capture counts. Bars: medians over the rounds; lines: from the least to the most.")


def user_clients(folder, runs):
    """Rates over the number of clients, one panel a statement."""
    figure, panels = plt.subplots(1, len(STATEMENTS), figsize=(13, 3.6))
    for axes, (statement, name) in zip(panels, STATEMENTS.items()):
        mine = of(runs, statement=statement)
        all_clients = sorted({run["clients"] for run in mine})
        for way, (label, color) in WAYS.items():
            rates = [median(run["tps"] for run in of(mine, clients=clients, way=way)) for clients in all_clients]
            axes.plot(all_clients, rates, marker="o", color=color, label=label)
        axes.set_title(name.replace("\n", " "))
        clients_axis(axes, all_clients)
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel("transactions a second")
    ways_legend(panels[-1], loc="upper left", bbox_to_anchor=(1.02, 1))
    folder.save("user-clients", figure, "Transactions a second of users, by number of clients", "Inference off. Medians over the rounds.")


def clients_axis(axes, all_clients):
    """Numbers of clients along a logarithmic x axis."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(all_clients, [str(clients) for clients in all_clients])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("clients")


def user_latency(folder, runs):
    """Latency of single-row statements."""
    statements = ("insert", "update_text", "update_other")
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.8), sharey=True)
    for axes, statement in zip(panels, statements):
        mine = of(runs, statement=statement)
        all_clients = sorted({run["clients"] for run in mine})
        for way, (label, color) in WAYS.items():
            for figure_name, style in (("p50", "-"), ("p99", ":")):
                values = [median(run[figure_name] for run in of(mine, clients=clients, way=way)) for clients in all_clients]
                axes.plot(all_clients, values, style, marker="o", color=color, label=label if style == "-" else None)
        axes.set_title(STATEMENTS[statement].replace("\n", " "))
        clients_axis(axes, all_clients)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        plain(axes.yaxis)
    panels[0].set_ylabel("latency in ms")
    ways_legend(panels[-1], loc="upper left", bbox_to_anchor=(1.02, 1))
    folder.save("user-latency", figure, "Latency of users", "Inference off. Solid: median; dotted: p99. Medians over the rounds.")


def processor_time(folder, runs):
    """Processor time of one row, by process."""
    statements = ("insert", "update_text", "update_other")
    figure, panels = plt.subplots(1, 3, figsize=(12, 4))
    parts = (("backend", "the user's server process", "#4d4d4d"), ("serving", "the server, for the capture", "#5b8db8"), ("outside", "the capturing process", "#e2b07a"))
    for axes, statement in zip(panels, statements):
        mine = of(runs, statement=statement)
        clients = 8 if any(run["clients"] == 8 for run in mine) else mine[0]["clients"]
        for position, way in enumerate(WAYS):
            bottom = 0
            for part, label, color in parts:
                value = median(run[part] for run in of(mine, clients=clients, way=way))
                axes.bar(position, value, 0.7, bottom=bottom, color=color, label=label if position == 0 else None)
                bottom += value
            axes.text(position, bottom, " %.0f" % bottom, ha="center", va="bottom", fontsize=8)
        axes.set_title("%s, %d clients" % (STATEMENTS[statement].replace("\n", " "), clients))
        axes.set_xticks(range(len(WAYS)), [label.replace(", ", ",\n") for label, _ in WAYS.values()], fontsize=8, rotation=35, ha="right", rotation_mode="anchor")
        axes.grid(axis="x", visible=False)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
    panels[0].set_ylabel("µs of processor time a row")
    ways_legend(panels[-1], loc="upper left", bbox_to_anchor=(1.02, 1))
    folder.save("processor-time", figure, "Processor time of one row, by process",
                "Inference off. Capturing ends where key and text are known: triggers give keys, so that the texts are read. Medians over the rounds.")


def log_bytes(folder, wal):
    figure, axes = plt.subplots(figsize=(8, 3.8))
    for position, statement in enumerate(STATEMENTS):
        for number, way in enumerate(WAYS):
            (row,) = of(wal, statement=statement, way=way)
            x = position + (number - 2) * 0.16
            axes.bar(x, row["bytes"], 0.15, color=WAYS[way][1], label=WAYS[way][0] if position == 0 else None)
            axes.text(x, row["bytes"], "%.0f" % row["bytes"], ha="center", va="bottom", fontsize=6)
    axes.set_xticks(range(len(STATEMENTS)), list(STATEMENTS.values()))
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("bytes of WAL a row")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)
    ways_legend(axes, ncols=5, loc="upper left")
    folder.save("wal", figure, "WAL written by the statements of users",
                "Without page images and without the write-back of the vector, which is the same for all ways.")


INFERENCE = {
    "off": ("no daemon", "#9a9a9a"),
    "yielding": ("lantern-cli", "#d9822b"),
    "unyielding": ("lantern-cli --yield off", "#7b5ea7"),
}
USERS = {
    "none": "no users",
    "a_client_a_core": "a client\na core",
    "four_clients_a_core": "four clients\na core",
    "steady": "1,000\na second",
}


def bars_of_inference(axes, runs, users, figure, text):
    """A group of bars for each kind of users, one for each kind of inference."""
    for position, kind in enumerate(users):
        for number, (inference, (label, color)) in enumerate(INFERENCE.items()):
            values = [figure(run) for run in of(runs, users=kind, inference=inference)]
            if not values:
                continue
            x = position + (number - 1) * 0.27
            axes.bar(x, median(values), 0.25, color=color, label=label if position == len(users) - 1 else None)
            axes.plot([x, x], [min(values), max(values)], color="#333333", linewidth=0.8)
            axes.text(x, max(values), text % median(values), ha="center", va="bottom", fontsize=7)
    axes.set_xticks(range(len(users)), [USERS[kind] for kind in users])
    axes.grid(axis="x", visible=False)


def beside_inference(folder, runs):
    """What users keep, what they wait for, and what is embedded meanwhile."""
    busy = [kind for kind in USERS if kind != "none"]
    alone = {(run["users"], run["round"]): run["speed"] for run in of(runs, inference="off")}
    def kept(run):
        return run["speed"]["tps"] / alone[run["users"], run["round"]]["tps"]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4))
    bars_of_inference(left, of_users(runs, busy), busy, kept, "%.2f")
    left.set_ylabel("transactions a second,\nas a share of those without a daemon")
    bars_of_inference(middle, of_users(runs, busy), busy, lambda run: run["speed"]["p99"], "%.1f")
    middle.set_ylabel("99th percentile of the latency, ms")
    middle.set_yscale("log")
    plain(middle.yaxis)
    embedding = [run for run in runs if run["inference"] != "off"]
    bars_of_inference(right, embedding, list(USERS), lambda run: run["embedded"], "%.0f")
    right.set_ylabel("texts embedded a second")
    left.set_ylim(0, left.get_ylim()[1] * 1.2)
    ways_legend(left, loc="upper left", ncols=2)
    folder.save("beside-inference", figure, "What users keep while a backlog is embedded on the processors of their server",
                "INSERTs into a table without a job. Bars: medians over the rounds; lines: from the least to the most.")


def of_users(runs, kinds):
    return [run for run in runs if run["users"] in kinds]


def near_saturation(folder, runs):
    """Freshness at shares of what can be embedded, with and without inference that yields."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True)
    titles = {"unyielding": "--yield off", "yielding": "inference yields to the writers"}
    for axes, (inference, title) in zip(panels, titles.items()):
        for way in EMBEDDING:
            label, color = WAYS[way]
            mine = [run for run in of(runs, way=way, inference=inference) if run["share"]]
            shares = sorted({run["share"] for run in mine})
            middle, high = ([median(run[name] for run in of(mine, share=share)) for share in shares] for name in ("p50", "p95"))
            axes.plot(shares, middle, marker="o", color=color, label=label)
            axes.fill_between(shares, middle, high, color=color, alpha=0.15, linewidth=0)
        axes.set_yscale("log")
        plain(axes.yaxis)
        axes.set_xticks(shares, ["%g" % share for share in shares])
        axes.set_xlabel("rows a second, as a share of saturation")
        axes.set_title(title)
    panels[0].set_ylabel("ms from commit to vector")
    ways_legend(panels[0], loc="best")
    folder.save("near-saturation", figure, "How fresh vectors are near saturation",
                "Four sessions insert single rows at a steady rate. Lines: medians; shades reach up to p95. Saturation: the most rows "
                "a second of any of the three.")


def freshness(folder, points, lone):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    for way in EMBEDDING:
        label, color = WAYS[way]
        mine = sorted(of(points, way=way), key=lambda point: point["offered"])
        alone = of(lone, way=way)
        offered = [1.0] * len(alone) + [point["offered"] for point in mine]
        middle = [point["p50"] for point in alone + mine]
        high = [point["p95"] for point in alone + mine]
        left.plot(offered, middle, marker="o", color=color, label=label)
        left.fill_between(offered, middle, high, color=color, alpha=0.15, linewidth=0)
        right.plot([point["offered"] for point in mine], [point["kept"] for point in mine], marker="o", color=color, label=label)
    left.set_xscale("log")
    left.set_yscale("log")
    plain(left.xaxis)
    plain(left.yaxis)
    left.set_xlabel("rows a second committed")
    left.set_ylabel("ms from commit to vector")
    left.set_title("freshness: lines are medians, shades reach up to p95")
    ways_legend(left, loc="best")
    top = max(point["offered"] for point in points) * 1.05
    right.plot([0, top], [0, top], color="#9a9a9a", linestyle="--", linewidth=1, label="as many as come in")
    right.set_xlim(0, top)
    right.set_ylim(0, top)
    right.set_xlabel("rows a second committed")
    right.set_ylabel("rows a second with a vector")
    right.set_title("saturation")
    ways_legend(right, loc="upper left")
    folder.save("freshness", figure, "How fresh vectors are, by load", "Single-row INSERTs; times are those of the server's commits.")


def drain(folder, large, bursts):
    largest = max(burst["rows"] for burst in large)
    figure, axes = plt.subplots(figsize=(8, 4.2))
    rates = [burst["bare"] for burst in bursts if burst["bare"] and not burst["bytes"]]
    for way in EMBEDDING:
        label, color = WAYS[way]
        for burst in of(large, way=way):
            seconds = [0] + [point[0] for point in burst["progress"]]
            rows = [0] + [point[1] for point in burst["progress"]]
            axes.plot(seconds, rows, color=color, label="%s: %.0f s" % (label, seconds[-1]))
    if rates:
        rate = median(rates)
        axes.plot([0, largest / rate], [0, largest], color="#9a9a9a", linestyle="--", linewidth=1.2,
                  label="bare ONNX Runtime loop, no database: %.0f s" % (largest / rate))
    axes.set_xlabel("seconds since the commit")
    axes.set_ylabel("rows with a vector")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: "{:,.0f}".format(value)))
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    ways_legend(axes, loc="lower right")
    folder.save("drain", figure, "{:,} rows in one transaction, until the last one has its vector".format(largest),
                "The bare loop's line is drawn from its rate beside smaller bursts." if rates else "")


def throughput(folder, bursts):
    """The share of a bare loop, for texts as they come and of given sizes."""
    groups = {}
    for burst in bursts:
        if burst["way"] == "daemon" and burst["bare"]:
            groups.setdefault(burst["bytes"], []).append(burst)
    order = sorted(groups, key=lambda size: size or 0)
    figure, axes = plt.subplots(figsize=(8.5, 4))
    for position, size in enumerate(order):
        shares = [burst["rate"] / burst["bare"] for burst in groups[size]]
        waiting = median(burst["waiting"] for burst in groups[size])
        rate = median(burst["rate"] for burst in groups[size])
        axes.bar(position, median(shares), 0.55, color=WAYS["daemon"][1])
        axes.plot([position, position], [min(shares), max(shares)], color="#333333", linewidth=0.8)
        text = "%.3f\n%.0f rows/s\nwaits %.1f %%" % (median(shares), rate, 100 * waiting)
        axes.text(position, min(shares) - 0.04, text, ha="center", va="top", fontsize=9, color="white")
    names = ["as they come" if size is None else "{:,} bytes".format(size) for size in order]
    axes.axhline(1, color="#9a9a9a", linestyle="--", linewidth=1)
    axes.set_xticks(range(len(order)), names)
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("size of a text")
    axes.set_ylabel("rows a second,\nas a share of the bare loop")
    axes.set_ylim(0, 1.15)
    folder.save("throughput", figure, "Rows embedded and written a second, against bare ONNX Runtime",
                "The bare loop has its texts tokenized and sorted beforehand and writes nothing. Waits: inference threads with nothing to do.")


def parts(folder, backlog, write_back):
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.8))
    for axes, rounds, mine, other, names in (
        (left, backlog, "ours", "recvlogical", ("lantern-cli", "pg_recvlogical")),
        (right, write_back, "write_back", "inside", ("write-back", "the same UPDATE\ninside the server")),
    ):
        for position, (name, color) in enumerate(((mine, WAYS["daemon"][1]), (other, "#5b8db8"))):
            rates = [entry[name] for entry in rounds]
            axes.bar(position, median(rates), 0.55, color=color)
            axes.plot([position, position], [min(rates), max(rates)], color="#333333", linewidth=0.8)
            axes.text(position, max(rates), "{:,.0f}".format(median(rates)), ha="center", va="bottom", fontsize=8)
        axes.set_xticks((0, 1), names)
        axes.grid(axis="x", visible=False)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.15)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: "{:,.0f}".format(value)))
        axes.set_title("ratio %.2f" % median(entry[mine] / entry[other] for entry in rounds))
    left.set_ylabel("rows a second")
    folder.save("parts", figure, "The stream of a backlog, and write-backs, next to their floors",
                "Bars: medians over the rounds; lines: from the least to the most.")


def jobs(folder, runs):
    """Left and middle: rates, writing to one table and to all. Right: what the walsenders spend."""
    figure, panels = plt.subplots(1, 3, figsize=(12, 4))
    one, spread, spent = panels
    counts = sorted({run["jobs"] for run in runs})
    kinds = (("nobody", "no daemon", "#9a9a9a"), ("job", "a slot for each job", "#7b5ea7"), ("database", "one slot for all", WAYS["daemon"][1]))
    for slots, name, color in kinds:
        mine = of(runs, slots=slots)
        for axes, wide in ((one, False), (spread, True)):
            at = {count: of(mine, jobs=count, tables=count if wide else 1) for count in counts}
            axes.plot(counts, [median(run["tps"] for run in at[count]) for count in counts], marker="o", color=color, label=name)
            for count in counts:
                rates = [run["tps"] for run in at[count]]
                axes.plot([count, count], [min(rates), max(rates)], color=color, linewidth=0.8)
        if slots != "nobody":
            middle = [median(run["walsenders"] for run in of(mine, jobs=count, tables=1)) for count in counts]
            spent.plot(counts, middle, marker="o", color=color, label=name)
    for axes in panels:
        axes.set_xscale("log")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("jobs on one database")
    highest = max(run["tps"] for run in runs) * 1.05
    for axes in (one, spread):
        axes.set_ylim(0, highest)
        axes.set_ylabel("the user's INSERTs a second")
    one.set_title("writing to the table of one job")
    spread.set_title("writing to the tables of all")
    spent.set_title("µs of all walsenders a row")
    spent.set_ylim(bottom=0)
    ways_legend(one, loc="lower left")
    folder.save("jobs", figure, "The cost of more jobs on one database for its users",
                "8 clients; inference off. Lines up and down: from the least to the most.")


def tables(folder, rows):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    sizes = [row["rows"] for row in rows]
    left.plot(sizes, [row["rate"] for row in rows], marker="o", color=WAYS["daemon"][1])
    right.plot(sizes, [row["peak"] / 2**20 for row in rows], marker="o", color=WAYS["daemon"][1], label="at its highest")
    right.plot(sizes, [row["idle"] / 2**20 for row in rows], marker="o", color="#9a9a9a", label="before the job")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(sizes, ["{:,}".format(size) for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(bottom=0)
        axes.set_xlabel("rows of the table")
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: "{:,.0f}".format(value)))
    left.set_ylabel("rows a second of the first run")
    right.set_ylabel("MB of resident memory")
    right.set_ylim(0, right.get_ylim()[1] * 1.2)
    ways_legend(right, loc="lower right")
    folder.save("tables", figure, "The initial backfill of a table, by its size",
                "With a model of 8 dimensions that takes next to no time, so that everything else shows.")


def main(path):
    folder = Folder(path)
    results = folder.results
    if results["user_side"]:
        runs = results["user_side"]["runs"]
        user_rates(folder, runs)
        if len({run["clients"] for run in runs if run["statement"] == "insert"}) > 1:
            user_clients(folder, runs)
            user_latency(folder, runs)
        processor_time(folder, runs)
        log_bytes(folder, results["user_side"]["wal"])
    if results["beside_inference"]:
        beside_inference(folder, results["beside_inference"])
    if results["freshness"]:
        freshness(folder, results["freshness"]["points"], results["freshness"]["lone"])
    if results["near_saturation"]:
        near_saturation(folder, results["near_saturation"])
    if results["bursts"]:
        throughput(folder, results["bursts"])
    if results["drain"]:
        drain(folder, results["drain"], results["bursts"] or [])
    if results["backlog"] and results["write_back"]:
        parts(folder, results["backlog"], results["write_back"])
    if results["jobs"]:
        jobs(folder, results["jobs"])
    if results["tables"]:
        tables(folder, results["tables"])


if __name__ == "__main__":
    main(*sys.argv[1:])
