// Asks the daemon for its state every two seconds, and shows the answer.

const POLL_MS = 2000;
const TIMEOUT_MS = 8000;
// The daemon publishes its state about once a second; before each attempt to connect while the jobs database is away.
const MAX_SILENCE_S = 10;
const MAX_SILENCE_AWAY_S = 120;
const FILTER_FROM = 7;

// Summary

const tiles = {};
for (const [name, label] of [
  ['jobs', 'Jobs at work'],
  ['rows', 'Rows a second'],
  ['lag', 'Oldest change'],
  ['wal', 'WAL retained'],
  ['inference', 'Inference may use'],
  ['memory', 'Memory'],
]) {
  const value = make('span');
  const note = make('span', 'note');
  $('summary').append(make('div', '', make('dt', '', label), make('dd', '', value, note)));
  tiles[name] = (text, more) => {
    set(value, text);
    set(note, more || '');
  };
}

const showSummary = ({ daemon, jobs: all }) => {
  const sum = (figure) => all.reduce((total, job) => total + (figure(job) || 0), 0);
  const here = all.filter((job) => runsHere(job, daemon));
  const wanted = all.filter((job) => job.state !== 'canceled');
  const atWork = wanted.filter((job) => job.state === 'streaming' || job.state === 'backfilling');
  const backfilling = all.filter((job) => job.state === 'backfilling').length;
  tiles.jobs(`${atWork.length} of ${wanted.length}`, backfilling ? `${backfilling} backfilling` : '');
  tiles.rows(rate(sum((job) => job.rows_per_second)), `${count(sum((job) => job.rows_today))} today`);
  const lags = here.filter((job) => job.lag_seconds != null);
  const oldest = lags.reduce((most, job) => (!most || job.lag_seconds > most.lag_seconds ? job : most), null);
  const late = oldest && oldest.lag_seconds > 0;
  tiles.lag(oldest ? age(oldest.lag_seconds) : '–', late ? oldest.table : 'without a vector');
  // Jobs of a shared slot have it in common.
  const slots = new Map(here.filter((job) => job.slot).map((job) => [job.slot.name, job.slot.retained_bytes]));
  const retained = [...slots.values()].reduce((total, size) => total + size, 0);
  tiles.wal(bytes(retained), `by ${slots.size} ${slots.size === 1 ? 'slot' : 'slots'}`);
  const share = Math.round(daemon.inference_share * 100);
  const threads = `of ${daemon.inference_threads} ${daemon.inference_threads === 1 ? 'thread' : 'threads'}`;
  tiles.inference(`${share} %`, share < 100 ? `${threads}, yielding` : threads);
  tiles.memory(bytes(daemon.memory_bytes), `running for ${duration(daemon.uptime_seconds)}`);
  const { host, pid, version } = daemon.name;
  set($('daemon'), `${version} · ${daemon.jobs_table} · process ${pid} on ${host}`);
};

// Problems and failures

const makeProblem = () => {
  const title = make('h3');
  const reason = make('p');
  const todo = make('p', 'do');
  const statement = make('code', 'statement');
  const node = make('li', 'problem', title, reason, todo, statement);
  const update = (problem) => {
    node.dataset.tone = problem.tone;
    set(title, problem.title);
    set(reason, problem.reason || '');
    show(reason, problem.reason != null);
    set(todo, problem.todo || '');
    show(todo, problem.todo != null);
    set(statement, problem.statement || '');
    show(statement, problem.statement != null);
  };
  return { node, update };
};
const showProblems = keyed($('problem-list'), makeProblem);

const makeFailure = () => {
  const key = make('span', 'key');
  const error = make('p');
  const about = make('p', 'about');
  const node = make('li', 'failure', key, error, about);
  const update = ({ failure, table }) => {
    set(key, failure.key);
    set(error, failure.error);
    const tries = failure.attempts === 1 ? 'tried once' : `tried ${failure.attempts} times`;
    set(about, [`job ${failure.job}`, table, tries, failure.failed_at].filter(Boolean).join(' · '));
  };
  return { node, update };
};
const showFailures = keyed($('failure-list'), makeFailure);

const showAllFailures = ({ failures, jobs: all }) => {
  const tables = new Map(all.map((job) => [job.id, job.table]));
  const items = failures.map((failure) => ({ failure, table: tables.get(failure.job) }));
  showFailures(items, ({ failure }) => `${failure.job} ${failure.key}`);
  show($('failures'), failures.length > 0);
  if (!failures.length) return;
  const known = all.reduce((sum, job) => sum + (job.quarantined_rows || 0), 0);
  const newest = known > failures.length ? `The newest ${failures.length} of ${count(known)}. ` : '';
  const help = 'The others go on. A row is tried again when its text changes. Once the cause is removed, run ';
  const ids = new Set(failures.map((failure) => failure.job));
  const command = make('code', '', `lantern-cli retry-failed --job ${ids.size === 1 ? failures[0].job : 'ID'}`);
  $('failures-help').replaceChildren(newest + help, command, '.');
};

// The page

let status = null;
let answered = null;
let lostSince = null;
let silence = 0;

const matches = (job, words) => {
  const text = [job.id, job.table, job.source, job.destination, job.model, job.state].join(' ').toLowerCase();
  return words.every((word) => text.includes(word));
};

const draw = () => {
  showSummary(status);
  const problems = findProblems(status);
  showProblems(problems, (problem) => problem.key);
  show($('problems'), problems.length > 0);
  const filter = $('filter').value.trim().toLowerCase();
  const shown = status.jobs.filter((job) => matches(job, filter.split(/\s+/)));
  const { history, daemon } = status;
  showJobs(shown.map((job) => ({ job, history: history[job.id], daemon })), ({ job }) => job.id);
  show($('filter-label'), status.jobs.length >= FILTER_FROM || filter !== '');
  show($('no-jobs'), shown.length === 0);
  set($('no-jobs'), filter ? 'No job matches the filter.' : 'No jobs yet: insert a row into the jobs table.');
  showAllFailures(status);
  show($('content'), true);
  const title = problems.length ? `(${problems.length}) lantern-cli` : 'lantern-cli';
  if (document.title !== title) {
    document.title = title;
    const many = `${problems.length} ${problems.length === 1 ? 'problem' : 'problems'}`;
    set($('announcement'), problems.length ? many : 'All is well');
  }
};

// What is said of the connection, and of how old the figures are.
const showConnection = () => {
  const connection = $('connection');
  const banner = $('banner');
  const say = (state, text, alarm) => {
    connection.dataset.state = state;
    set(connection, text);
    set(banner, alarm || '');
    show(banner, alarm != null);
    document.body.classList.toggle('stale', alarm != null);
  };
  if (lostSince) {
    const since = clock(lostSince.at);
    return say('lost', `No answer since ${since}`, lostSince.reason(since));
  }
  if (!status) return say('waiting', 'Asking the daemon …');
  const limit = status.daemon.jobs_database_error == null ? MAX_SILENCE_S : MAX_SILENCE_AWAY_S;
  if (silence > limit) {
    const alarm = `The daemon hangs: these figures are ${duration(silence)} old. Restart it.`;
    return say('lost', 'The daemon hangs', alarm);
  }
  say('live', 'Live');
};

const NOT_REACHED = (since) =>
  `The daemon has not answered since ${since}. The figures below are the last ones. See its log; ` +
  'lantern-cli status asks the database instead.';
const NOT_ADMITTED = () => 'The daemon does not accept the token any more. Reload this page.';
const NOT_STARTED = () => 'The daemon has not read its jobs table yet.';

// The answer with its status, or nothing if there is none.
const fetchStatus = async () => {
  try {
    const response = await fetch('/api/status', { cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS) });
    const date = Date.parse(response.headers.get('date')) / 1000;
    return { code: response.status, date, answer: response.ok ? await response.json() : null };
  } catch {
    return null;
  }
};

const ask = async () => {
  const got = await fetchStatus();
  if (!got || !got.answer) {
    const reasons = { 401: NOT_ADMITTED, 503: NOT_STARTED };
    const reason = (got && reasons[got.code]) || NOT_REACHED;
    lostSince = { at: lostSince ? lostSince.at : answered || new Date(), reason };
    return;
  }
  status = got.answer;
  answered = new Date();
  lostSince = null;
  // By the daemon's own clock.
  silence = got.date - status.published || 0;
  draw();
};

let pending = false;
let timer;
const poll = async () => {
  clearTimeout(timer);
  if (pending || document.hidden) return;
  pending = true;
  try {
    await ask();
  } finally {
    pending = false;
    showConnection();
    // The answer grows with the jobs.
    timer = setTimeout(poll, Math.max(POLL_MS, status ? status.jobs.length * 20 : 0));
  }
};

$('filter').addEventListener('input', () => status && draw());
document.addEventListener('visibilitychange', poll);
poll();
