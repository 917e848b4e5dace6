// The jobs, each with its curves and details.

const WIDTH = 180;
const HEIGHT = 32;
const curve = () => {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('class', 'curve');
  svg.setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('role', 'img');
  const area = document.createElementNS(SVG, 'polygon');
  const line = document.createElementNS(SVG, 'polyline');
  svg.append(area, line);
  return {
    svg,
    draw(samples, label) {
      svg.setAttribute('aria-label', label);
      const most = Math.max(...samples, 0) || 1;
      // The newest is at the right edge.
      const begin = WIDTH - (samples.length - 1);
      const place = (sample, index) =>
        `${begin + index},${(HEIGHT - 1 - (sample / most) * (HEIGHT - 2)).toFixed(1)}`;
      const points = samples.map(place).join(' ');
      line.setAttribute('points', samples.length > 1 ? points : '');
      area.setAttribute('points', samples.length > 1 ? `${begin},${HEIGHT} ${points} ${WIDTH},${HEIGHT}` : '');
    },
  };
};

const figure = (className, label) => {
  const value = make('span', 'value');
  const drawn = curve();
  const text = make('span', '', make('span', 'label', label), value);
  return { node: make('span', `figure ${className}`, text, drawn.svg), value, curve: drawn };
};

const DETAILS = [
  ['Model', (job) => job.model],
  ['Computed by', (job) => job.provider],
  ['Runs in', (job) => place(job)],
  ['Rows today (UTC)', (job) => count(job.rows_today)],
  ['Behind in the WAL', (job) => bytes(job.lag_bytes)],
  ['Replication slot', (job) => job.slot && job.slot.name],
  ['wal_status', (job) => job.slot && job.slot.wal_status],
  ['Confirmed up to', (job) => job.slot && job.slot.confirmed_lsn],
  ['Rows in the failures table', (job) => count(job.quarantined_rows)],
  ['Rows with a vector', (job) => (job.chunk_table ? null : job.coverage && coverage(job.coverage))],
  ['Documents with passages', (job) => (job.chunk_table ? job.coverage && coverage(job.coverage) : null)],
  ['Passages', (job) => passages(job.coverage)],
  ['Vectors written', (job) => (job.chunk_table ? null : total(job, 'rows_written'))],
  ['Documents written', (job) => (job.chunk_table ? total(job, 'rows_written') : null)],
  ['Passages written', (job) => (job.chunk_table ? total(job, 'passages_written') : null)],
  ['Superseded', (job) => total(job, 'rows_superseded')],
  ['Texts embedded', (job) => total(job, 'texts')],
  ['Of them known already', (job) => total(job, 'cache_hits')],
  ['Index', (job) => job.index_state],
  ['Texts that were cut', (job) => total(job, 'texts_truncated')],
  ['Tokens', (job) => total(job, 'tokens')],
  ['Inference', (job) => job.totals && inference(job.totals)],
  ['Servers', (job) => servers(job.servers)],
  ['Devices', (job) => devices(job.devices)],
  ['Requests', (job) => (job.totals && job.totals.requests > 0 ? count(job.totals.requests) : null)],
  ['Estimated cost', (job) => cost(job.totals)],
  ['Write-backs', (job) => job.totals && writeBacks(job.totals)],
  ['Figures of', (job) => (job.as_of == null ? null : new Date(job.as_of * 1000).toLocaleString())],
];
const place = ({ state, daemon }) => {
  if (daemon) return `process ${daemon.pid} on ${daemon.host}`;
  return RUNNING.includes(state) ? 'another daemon' : 'no daemon';
};
const servers = (all) =>
  all
    .map(({ server, requests, failures, trouble }) => {
      const failed = failures > 0 ? `, ${count(failures)} of them failed` : '';
      const why = trouble ? `; left out for now: ${trouble}` : '';
      return `${server}: ${count(requests)} requests${failed}${why}`;
    })
    .join('\n') || null;
const devices = (all) => {
  const others = all.some((device) => device.lost_since == null) ? 'its texts are for the others' : 'rows wait';
  const lost = ({ lost_since: since, error }) =>
    since == null ? '' : `; lost since ${new Date(since * 1000).toLocaleString()}, ${others}: ${error}`;
  return all.map((one) => `${one.device}: ${count(one.batches)} batches${lost(one)}`).join('\n') || null;
};
const total = (job, name) => (job.totals ? count(job.totals[name]) : null);
const inference = ({ inference_seconds: seconds, batches }) => `${duration(seconds)} in ${count(batches)} batches`;
const cost = (totals) => (totals && totals.estimated_cost > 0 ? totals.estimated_cost.toFixed(4) : null);
const writeBacks = ({ write_backs: number, write_back_seconds: seconds }) =>
  number ? `${count(number)}, ${((seconds / number) * 1000).toFixed(1)} ms each` : '0';
const passages = (known) =>
  known && known.passages != null ? `${known.is_exact ? '' : 'about '}${count(known.passages)}` : null;
const coverage = ({ rows_with_text: all, rows_with_vector: done, is_exact: exact }) =>
  `${exact ? '' : 'about '}${count(done)} of ${count(all)}`;

const makeJob = (job) => {
  const badge = make('span', 'badge');
  const table = make('strong');
  const columns = make('span', 'columns');
  const rows = figure('rows', 'Rows a second');
  const lag = figure('lag', 'Oldest change');
  const wal = make('span', 'value');
  const walFigure = make('span', 'figure wal', make('span', '', make('span', 'label', 'WAL retained'), wal));
  const bar = make('progress');
  bar.max = 100;
  const scanned = make('span', 'label');
  const progress = make('span', 'progress', scanned, bar);
  const what = make('span', 'what', make('span', 'title', table, badge), columns);
  const idle = make('span', 'idle');
  const figures = [rows.node, lag.node, walFigure];
  const reason = make('p');
  const todo = make('p', 'do');
  const list = make('dl');
  const details = make('details', '', make('summary', '', what, idle, ...figures));
  details.append(make('div', 'more', reason, todo, list));
  const node = make('li', '', details);
  node.dataset.job = job.id;
  const entries = DETAILS.map(([label, text]) => {
    const value = make('dd');
    const entry = make('div', '', make('dt', '', label), value);
    list.append(entry);
    return { entry, value, text };
  });
  const update = ({ job: now, history, daemon }) => {
    const [state, tone] = STATES[now.state] || [now.state, ''];
    set(badge, runsElsewhere(now, daemon) ? `${state} elsewhere` : state);
    badge.dataset.tone = tone;
    set(table, now.table);
    const vectors = [now.chunk_table, now.destination].filter((name) => name).join('.');
    const path = now.source && now.destination ? `${now.source} → ${vectors}` : '';
    set(columns, `job ${now.id}${path ? ` · ${path}` : ''}`);
    set(rows.value, rate(now.rows_per_second));
    set(lag.value, age(now.lag_seconds));
    set(wal, bytes(now.slot ? now.slot.retained_bytes : null));
    wal.dataset.tone = now.slot && isEndangered(now.slot) ? 'bad' : '';
    const here = runsHere(now, daemon);
    figures.forEach((node) => show(node, here));
    show(idle, !here);
    set(idle, here ? '' : whyIdle(now, daemon));
    const { rows_per_second: flow = [], lag_seconds: lags = [] } = history || {};
    rows.curve.draw(flow, `Rows a second in the last minutes: at most ${rate(Math.max(0, ...flow))}`);
    lag.curve.draw(lags, `Age of the oldest change in the last minutes: at most ${duration(Math.max(0, ...lags))}`);
    showScan(now);
    set(reason, now.reason || '');
    show(reason, now.reason != null);
    const [sentence] = remedy(now, daemon);
    set(todo, sentence || '');
    show(todo, sentence != null && now.state !== 'failed');
    if (details.open) showDetails(now);
    latest = now;
  };
  let latest = job;
  const showScan = (now) => {
    const scan = now.scan;
    if (!scan && now.state !== 'backfilling') {
      progress.remove();
      return;
    }
    if (!progress.isConnected) what.append(progress);
    const percent = scan && scan.rows_total > 0 ? (scan.rows_done / scan.rows_total) * 100 : now.backfill_percent;
    bar.value = percent;
    const parts = [`${Math.floor(percent)} %`];
    if (scan) {
      parts.push(`${count(scan.rows_done)} of ${count(scan.rows_total)} ${now.chunk_table ? 'documents' : 'rows'}`);
      if (scan.seconds_left != null) parts.push(`${duration(Math.round(scan.seconds_left))} left`);
    }
    set(scanned, parts.join(' · '));
    bar.setAttribute('aria-label', 'Existing rows that are embedded');
  };
  const showDetails = (now) => {
    for (const { entry, value, text } of entries) {
      const shown = text(now);
      show(entry, shown != null && shown !== '');
      set(value, shown || '');
    }
  };
  details.addEventListener('toggle', () => showDetails(latest));
  return { node, update };
};

const showJobs = keyed($('jobs'), ({ job }) => makeJob(job));
