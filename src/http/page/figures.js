// Figures as people read them.

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });
const count = (number) => (number == null ? '–' : whole.format(number));
const rate = (number) => {
  if (number == null) return '–';
  return number > 0 && number < 10 ? number.toFixed(1) : whole.format(number);
};
const bytes = (number) => {
  if (number == null) return '–';
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${unit > 0 && number < 10 ? number.toFixed(1) : Math.round(number)} ${units[unit]}`;
};
const duration = (seconds) => {
  if (seconds == null) return '–';
  if (seconds < 10) return seconds > 0 && seconds < 0.1 ? '< 0.1 s' : `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
};
const age = (seconds) => (seconds === 0 ? 'none waits' : duration(seconds));
const clock = (date) => date.toLocaleTimeString(undefined, { hour12: false });
const literal = (text) => `'${text.replaceAll("'", "''")}'`;
