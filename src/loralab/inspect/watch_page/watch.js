// The page of `loralab watch`: /events sends `sweep` (the whole state) and `curves` (of the runs whose curves changed).
import { Chart } from './charts.js';

const COLOURS = 6; // of curves; the other curves are grey
const AGAIN_MS = 2000; // before a stream is opened again that the browser gave up
const RUN = 'run', STATE = 'state', STEP = 'step', RATE = 'rate', TIME = 'time', NOTE = 'note';
const RANK = ['running', 'waiting', 'done', 'paused', 'diverged', 'failed', 'damaged', 'cut off', 'not begun'];
const SENTENCES = { killed: 'killed', stopped: 'stopped', ended: 'ended', stopping: 'stopping', training: 'running' };

const by = id => document.getElementById(id);
const curves = new Map(); // run -> {'split/metric': [[step, value], ...]}
const rows = new Map(); // run -> its <tr>
const charts = new Map(); // 'split/metric' -> Chart
let sweep = null; // what the server last said
let chosen = null; // Map run -> colour, once the reader has chosen; null: the runs at work and the best
let sorted = { key: null, down: false };

function element(name, text = '', kind = '') {
  const made = document.createElement(name);
  if (text !== '') made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function clock(seconds) {
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function score(value) {
  if (value === null) return 'not finite';
  return Math.abs(value) < 1000 ? value.toFixed(4) : value.toPrecision(4);
}

// Whether a run may be coloured as one of the best.
const counts = run => !['diverged', 'failed', 'damaged'].includes(run.state);

// The settings of a run that differ from another's, or its hash where none do.
function label(run) {
  const own = sweep.settings.filter(({ key }) => key in run.settings);
  return own.map(({ key, title }) => `${title}=${run.settings[key]}`).join(' ') || run.hash;
}

// Columns: {key, title, text: whether it is text, of: the value by which it sorts, cell: its text, first: whether the largest comes first}
function columns() {
  const at = (key, title, of, cell, more = {}) => ({ key, title, of, cell, text: false, first: false, ...more });
  const found = [
    at(RUN, 'run', run => sweep.runs.indexOf(run), run => run.hash, { text: true }),
    at(STATE, 'state', run => RANK.indexOf(run.state), run => run.state, { text: true }),
    at(STEP, 'step', run => run.step || null, run => run.step < run.steps ? `${run.step} of ${run.steps}` : run.step ? String(run.step) : ''),
  ];
  for (const { key, title } of sweep.settings)
    found.push(at(`set ${key}`, title, run => run.settings[key] ?? null, run => run.settings[key] ?? ''));
  for (const { key, title, lower } of sweep.metrics)
    found.push(at(`of ${key}`, title, run => run.scores[key] ?? null, run => key in run.scores ? score(run.scores[key]) : '', { first: !lower, metric: key }));
  found.push(at(RATE, 'steps/s', run => run.rate, run => run.rate === null ? '' : String(+run.rate.toPrecision(3)), { first: true }));
  found.push(at(TIME, 'time', run => run.seconds || null, run => run.seconds ? clock(run.seconds) : ''));
  if (sweep.runs.some(run => run.note)) found.push(at(NOTE, 'what happened', run => run.note || null, run => run.note, { text: true }));
  return found;
}

// Numbers before texts; what is missing comes last in either direction. Unless the reader sorts, runs at work come first.
function inOrder(list) {
  const column = columns().find(each => each.key === sorted.key);
  if (!column) return [...list].sort((one, other) => (other.state === 'running') - (one.state === 'running'));
  const rank = value => typeof value === 'number' || (value !== '' && isFinite(value)) ? [0, +value] : [1, String(value)];
  return [...list].sort((one, other) => {
    const [a, b] = [column.of(one), column.of(other)];
    if (a === null || b === null) return (a === null) - (b === null);
    const [[ka, va], [kb, vb]] = [rank(a), rank(b)];
    const sign = ka - kb || (va < vb ? -1 : va > vb ? 1 : 0);
    return sorted.down ? -sign : sign;
  });
}

// The best score of the runs that are done: of others, the last validation is that of another step.
function best(metric) {
  const lower = sweep.metrics.find(each => each.key === metric).lower;
  const values = sweep.runs.filter(run => run.state === 'done').map(run => run.scores[metric]).filter(value => value != null);
  if (values.length < 2) return null;
  return lower ? Math.min(...values) : Math.max(...values);
}

// run -> colour
function colours() {
  if (chosen) return chosen;
  const there = sweep.runs.filter(run => curves.has(run.run));
  const work = there.filter(run => run.state === 'running');
  const metric = sweep.metrics[0];
  const ended = there.filter(run => !work.includes(run) && counts(run) && metric && run.scores[metric.key] != null);
  ended.sort((a, b) => (a.scores[metric.key] - b.scores[metric.key]) * (metric.lower ? 1 : -1));
  // runs that are coloured already keep their colour
  const wanted = [...work, ...ended].slice(0, COLOURS).map(run => run.run);
  const kept = new Map([...automatic].filter(([run]) => wanted.includes(run)));
  const free = [...Array(COLOURS).keys()].filter(colour => ![...kept.values()].includes(colour));
  for (const run of wanted) if (!kept.has(run)) kept.set(run, free.shift());
  automatic = kept;
  return kept;
}
let automatic = new Map();

function toggle(run) {
  const next = new Map(colours());
  if (next.has(run)) next.delete(run);
  else {
    if (next.size === COLOURS) next.delete(next.keys().next().value); // the one that was coloured first
    next.set(run, [...Array(COLOURS).keys()].find(colour => ![...next.values()].includes(colour)));
  }
  chosen = next;
  render();
}

function header() {
  set(by('title'), sweep.title === 'sweep' ? sweep.id : sweep.title);
  set(by('summary'), sweep.summary);
  by('state').hidden = false;
  by('state').className = `badge ${sweep.state}`;
  set(by('state'), SENTENCES[sweep.state]);
  const began = new Date(sweep.began * 1000).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
  set(by('facts'), `${sweep.id}, began ${began}, in ${sweep.store}`);
  set(by('command'), sweep.command);
  by('command').hidden = !sweep.command;
  document.title = `${sweep.over} of ${sweep.total}, ${SENTENCES[sweep.state]}: ${sweep.title}`;
  by('bar').replaceChildren(...Object.entries(sweep.counts).map(([state, count]) => {
    const piece = element('i', '', state.replace(' ', '-'));
    piece.style.flexGrow = count;
    return piece;
  }));
  by('answer-part').hidden = !sweep.answer.length;
  set(by('answer'), sweep.answer.join('\n'));
  const source = sweep.figure ? `figure.png?at=${sweep.over}` : '';
  by('figure-part').hidden = !source;
  if (source && by('figure').getAttribute('src') !== source) by('figure').src = source;
}

let heads = '';
function table() {
  const all = columns();
  const text = JSON.stringify(all.map(each => [each.key, each.title]));
  if (text !== heads) {
    heads = text;
    rows.clear();
    by('columns').replaceChildren(...all.map(column => {
      const cell = element('th', '', column.text ? 'text' : '');
      const button = element('button', column.title);
      cell.scope = 'col';
      cell.dataset.key = column.key;
      button.type = 'button';
      button.addEventListener('click', () => { sortBy(column); });
      cell.append(button);
      return cell;
    }));
  }
  for (const cell of by('columns').children) {
    if (cell.dataset.key === sorted.key) cell.setAttribute('aria-sort', sorted.down ? 'descending' : 'ascending');
    else cell.removeAttribute('aria-sort');
  }
  const bests = new Map(sweep.metrics.map(({ key }) => [key, best(key)]));
  const coloured = colours();
  const order = inOrder(sweep.runs).map(run => row(run, all, bests, coloured));
  const body = by('runs');
  if (order.length !== body.children.length || order.some((each, at) => body.children[at] !== each)) {
    const focused = document.activeElement;
    body.replaceChildren(...order);
    if (body.contains(focused)) focused.focus({ preventScroll: true });
  }
}

function row(run, all, bests, coloured) {
  let made = rows.get(run.run);
  if (!made) {
    made = element('tr');
    for (const column of all) {
      const cell = element(column.key === RUN ? 'th' : 'td', '', column.text ? 'text' : '');
      if (column.key === RUN) {
        cell.scope = 'row';
        const button = element('button', '', 'run');
        button.type = 'button';
        button.append(element('span', run.hash));
        button.title = run.run;
        button.addEventListener('click', () => toggle(run.run));
        cell.append(button);
      }
      if (column.key === STATE) cell.append(element('span', '', 'badge'));
      if (column.key === NOTE) cell.classList.add('note');
      made.append(cell);
    }
    const heat = to => () => { for (const chart of charts.values()) chart.heat(to); };
    for (const [name, to] of [['mouseenter', run.run], ['focusin', run.run], ['mouseleave', null], ['focusout', null]])
      made.addEventListener(name, heat(to));
    rows.set(run.run, made);
  }
  all.forEach((column, at) => {
    const cell = made.children[at];
    if (column.key === RUN) {
      const button = cell.firstChild, colour = coloured.get(run.run);
      button.className = colour === undefined ? 'run' : `run c${colour}`;
      button.setAttribute('aria-pressed', String(colour !== undefined));
    } else if (column.key === STATE) {
      cell.firstChild.className = `badge ${run.state}`;
      set(cell.firstChild, run.state);
    } else {
      const text = column.cell(run);
      const wins = column.metric && text !== '' && run.state === 'done' && run.scores[column.metric] === bests.get(column.metric);
      cell.classList.toggle('best', Boolean(wins));
      if (cell.firstChild?.nodeValue !== text || Boolean(wins) !== Boolean(cell.lastElementChild)) {
        cell.textContent = text;
        if (wins) cell.append(element('span', ', the best', 'hidden'));
      }
      if (column.key === STEP) {
        cell.classList.toggle('share', run.state === 'running');
        cell.style.setProperty('--share', `${run.steps ? 100 * run.step / run.steps : 0}%`);
      }
    }
  });
  return made;
}

// Once: in the column's natural direction; twice: in the other one; three times: as the sweep has them.
function sortBy(column) {
  if (sorted.key !== column.key) sorted = { key: column.key, down: column.first };
  else if (sorted.down === column.first) sorted.down = !column.first;
  else sorted = { key: null, down: false };
  table();
}

function draw() {
  const names = new Set([...curves.values()].flatMap(each => Object.keys(each)));
  const order = ['train/loss', 'validation/loss', ...sweep.metrics.map(each => each.key)].filter((name, at, all) => names.has(name) && all.indexOf(name) === at);
  const coloured = colours();
  for (const name of order) {
    if (!charts.has(name)) charts.set(name, new Chart(by('charts'), name));
    charts.get(name).show(sweep.runs.filter(run => curves.get(run.run)?.[name]).map(run => ({
      run: run.run,
      label: label(run),
      points: curves.get(run.run)[name],
      colour: coloured.get(run.run) ?? null,
      wild: run.state === 'diverged',
    })));
  }
  by('curves-part').hidden = !order.length;
  set(by('which'), chosen ? 'the runs that you chose' : 'the runs at work and the best ones');
  by('auto').hidden = !chosen;
}

function clear() {
  curves.clear(); rows.clear(); charts.clear(); automatic.clear();
  [sweep, chosen, heads, sorted] = [null, null, '', { key: null, down: false }];
  for (const id of ['charts', 'runs', 'columns', 'bar']) by(id).replaceChildren();
  for (const id of ['answer-part', 'curves-part', 'runs-part', 'figure-part', 'state', 'command']) by(id).hidden = true;
  for (const id of ['summary', 'facts']) set(by(id), '');
}

let due = false;
function render() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    if (!sweep) return;
    header();
    by('runs-part').hidden = false;
    table();
    draw();
  });
}

function told(next) {
  if (next.id === null) {
    clear();
    set(by('title'), next.error ? 'The sweep cannot be read' : 'No sweep yet');
    set(by('summary'), next.error ?? `A sweep that begins in ${next.store} appears here.`);
    document.title = 'loralab watch';
    return;
  }
  if (sweep?.id !== next.id) clear();
  sweep = next;
  render();
}

function link(kind, text) {
  by('link').className = `link ${kind}`;
  set(by('link'), text);
}

function listen() {
  const stream = new EventSource('events');
  stream.addEventListener('open', () => { link('live', 'live'); });
  stream.addEventListener('sweep', event => told(JSON.parse(event.data)));
  stream.addEventListener('curves', event => {
    for (const [run, its] of Object.entries(JSON.parse(event.data))) curves.set(run, its);
    render();
  });
  stream.addEventListener('error', () => {
    link('lost', 'connection lost, trying again');
    if (stream.readyState !== EventSource.CLOSED) return; // else the browser connects again
    setTimeout(listen, AGAIN_MS);
  });
}

by('auto').addEventListener('click', () => { chosen = null; render(); by('runs-head').scrollIntoView({ block: 'nearest' }); });
listen();
