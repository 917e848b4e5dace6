// What a state means, and what to do about it.

const STATES = {
  waiting: ['waiting', 'warn'],
  starting: ['starting', 'busy'],
  backfilling: ['backfilling', 'busy'],
  streaming: ['streaming', 'good'],
  interrupted: ['interrupted', 'warn'],
  stopped: ['stopped', 'warn'],
  failed: ['failed', 'bad'],
  canceled: ['canceled', ''],
};
const tone = (state) => (STATES[state] || [state, ''])[1];
const RUNNING = ['starting', 'backfilling', 'streaming', 'interrupted'];
const runsHere = ({ daemon }, { name }) => daemon != null && daemon.host === name.host && daemon.pid === name.pid;
const runsElsewhere = (job, daemon) => RUNNING.includes(job.state) && !runsHere(job, daemon);

const isEndangered = ({ wal_status: wal }) => wal === 'unreserved' || wal === 'lost';

// Why there are no figures of a job.
const whyIdle = (job, daemon) => {
  if (runsElsewhere(job, daemon)) return 'Another daemon runs it, and has its figures.';
  if (job.state === 'canceled') return 'It was canceled.';
  return job.reason || 'No daemon runs it.';
};

// What to do about a job that does not run: a sentence, and a statement if there is one.
const remedy = (job, daemon) => {
  switch (job.state) {
    case 'failed':
      return [
        'Remove the cause. Then start the job again:',
        `UPDATE ${daemon.jobs_table} SET init_failed_at = NULL WHERE id = ${literal(job.id)};`,
      ];
    case 'interrupted':
      return ['The daemon tries again by itself, until the cause is gone.'];
    case 'stopped':
      return ['No daemon runs it. It goes on where it was as soon as one takes it.'];
    case 'waiting':
      return ['No daemon has started it yet. One takes it within a second, unless it runs as many as it may.'];
    default:
      return [];
  }
};

// Everything that needs a person, the worst first.
const findProblems = (status) => {
  const problems = [];
  const add = (key, tone, title, reason, [todo, statement] = []) =>
    problems.push({ key, tone, title, reason, todo, statement });
  const error = status.daemon.jobs_database_error;
  if (error != null) {
    const todo = ['The jobs that run go on. None starts, and none is canceled, until it answers.'];
    add('jobs database', 'bad', 'The jobs database does not answer', error, todo);
  }
  for (const job of status.jobs) {
    const title = (what) => `Job ${job.id} on ${job.table} ${what}`;
    for (const device of (job.devices || []).filter((one) => one.lost_since != null)) {
      add(`device ${device.device} ${job.id}`, 'warn', title(`has lost the device ${device.device}`), device.error, [
        'The daemon loads the model on it again until it computes. If it is fine for other programs, restart the daemon.',
      ]);
    }
    if (job.index_state != null && job.index_state.startsWith('not built')) {
      add(`index ${job.id}`, 'warn', title('has no index'), job.index_state);
    }
    if (job.state === 'failed') {
      add(`failed ${job.id}`, 'bad', title('has failed'), job.reason, remedy(job, status.daemon));
    } else if (job.state === 'interrupted') {
      add(`interrupted ${job.id}`, 'warn', title('is interrupted'), job.reason, remedy(job, status.daemon));
    } else if (job.state === 'stopped' || job.state === 'waiting') {
      add(`idle ${job.id}`, 'warn', title('does not run'), job.reason, remedy(job, status.daemon));
    }
    if (runsHere(job, status.daemon) && job.slot && isEndangered(job.slot)) {
      const todo = [
        'If the job does not catch up, its slot is dropped and its rows are embedded again. Raise ' +
          'max_slot_wal_keep_size on its server, or find out what holds the job up.',
      ];
      add(`wal ${job.id}`, 'bad', title('may lose its place in the WAL'), `wal_status: ${job.slot.wal_status}`, todo);
    }
  }
  return problems.sort((a, b) => (a.tone === 'bad' ? 0 : 1) - (b.tone === 'bad' ? 0 : 1));
};
