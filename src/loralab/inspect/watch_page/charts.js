// A chart of curves as SVG. Texts are set as text, never as HTML: they come from files.
const SVG = 'http://www.w3.org/2000/svg';
const EDGE = { left: 52, right: 16, top: 8, bottom: 34 };
const REACH = 40; // pixels from the pointer within which a point is shown

function part(parent, name, attributes = {}, text = '') {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== '') element.textContent = text;
  parent.append(element);
  return element;
}

// Round numbers from low to high, about `count` of them.
export function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(each => each * power).find(each => each >= raw * 0.999);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(n * step);
  return found;
}

export function number(value) {
  if (value !== 0 && (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3)) return value.toExponential(1);
  return String(+value.toPrecision(4));
}

// The axis holds every curve except those of diverged runs, which may leave it; a curve of equal values gets some room.
function span(series, at, whole) {
  const kept = series.filter(each => !each.wild);
  const values = (kept.length ? kept : series).flatMap(each => each.points.map(point => point[at]));
  let low = values.reduce((a, b) => Math.min(a, b), Infinity);
  let high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  if (whole) return [0, Math.max(high, 1)];
  const room = (high - low) * 0.05 || Math.abs(high) * 0.05 || 1;
  return [low - room, high + room];
}

export class Chart {
  constructor(parent, title) {
    this.figure = document.createElement('figure');
    this.figure.className = 'chart';
    const caption = document.createElement('figcaption');
    caption.textContent = title;
    this.svg = document.createElementNS(SVG, 'svg');
    this.svg.setAttribute('role', 'img');
    this.tip = document.createElement('div');
    this.tip.className = 'tip';
    this.tip.hidden = true;
    this.figure.append(caption, this.svg, this.tip);
    parent.append(this.figure);
    this.title = title;
    this.series = [];
    this.hot = null;
    this.scale = '';
    this.paths = new WeakMap(); // points -> the path that was drawn of them; a run that changes has new points
    new ResizeObserver(() => this.draw()).observe(this.svg);
    this.svg.addEventListener('pointermove', event => this.point(event));
    this.svg.addEventListener('pointerleave', () => this.leave());
  }

  // series: [{run, label, points: [[step, value], ...], colour: 0 to 5 or null, wild}]
  show(series) {
    this.series = series.filter(each => each.points.length);
    this.draw();
  }

  // Makes the curve of a run thick; null: of none.
  heat(run) {
    this.hot = run;
    for (const path of this.svg.querySelectorAll('[data-run]')) path.classList.toggle('hot', path.dataset.run === run);
  }

  draw() {
    const { width, height } = this.svg.getBoundingClientRect();
    if (!width || !this.series.length) return;
    const [x0, x1] = span(this.series, 0, true), [y0, y1] = span(this.series, 1, false);
    const scale = [x0, x1, y0, y1, width, height].join();
    if (scale !== this.scale) [this.scale, this.paths] = [scale, new WeakMap()];
    this.svg.replaceChildren();
    this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    const shown = this.series.length === 1 ? '1 run' : `${this.series.length} runs`;
    this.svg.setAttribute('aria-label', `${this.title} against the step, ${shown}; the last values are in the table`);
    this.x = step => EDGE.left + (step - x0) / (x1 - x0) * (width - EDGE.left - EDGE.right);
    this.y = value => height - EDGE.bottom - (value - y0) / (y1 - y0) * (height - EDGE.top - EDGE.bottom);
    for (const value of ticks(y0, y1, 4)) {
      const y = this.y(value);
      part(this.svg, 'line', { class: 'grid', x1: EDGE.left, x2: width - EDGE.right, y1: y, y2: y });
      part(this.svg, 'text', { x: EDGE.left - 6, y: y + 4, 'text-anchor': 'end' }, number(value));
    }
    const base = height - EDGE.bottom;
    part(this.svg, 'line', { class: 'axis', x1: EDGE.left, x2: width - EDGE.right, y1: base, y2: base });
    for (const step of ticks(x0, x1, Math.max(2, width / 60)).filter(Number.isInteger))
      part(this.svg, 'text', { x: this.x(step), y: base + 16, 'text-anchor': 'middle' }, step);
    part(this.svg, 'text', { x: width - EDGE.right, y: height - 4, 'text-anchor': 'end' }, 'step');
    // a nested svg clips what leaves the axes
    const room = { width: Math.max(0, width - EDGE.left - EDGE.right + 4), height: base - EDGE.top + 4 };
    const inside = part(this.svg, 'svg', { x: EDGE.left, y: EDGE.top - 2, ...room });
    const place = ([step, value]) => [this.x(step) - EDGE.left, this.y(value) - EDGE.top + 2];
    const order = [...this.series].sort((a, b) => (a.colour !== null) - (b.colour !== null));
    for (const each of order) {
      const kind = each.colour === null ? '' : `near c${each.colour}`;
      if (!this.paths.has(each.points)) {
        const corners = each.points.map(point => place(point).map(at => at.toFixed(1)).join(' '));
        this.paths.set(each.points, `M${corners.join('L')}`);
      }
      if (each.points.length > 1)
        part(inside, 'path', { class: kind, 'data-run': each.run, d: this.paths.get(each.points) });
      const [cx, cy] = place(each.points[each.points.length - 1]);
      part(inside, 'circle', { class: kind, r: each.colour === null ? 2 : 3, cx: cx.toFixed(1), cy: cy.toFixed(1) });
    }
    this.heat(this.hot);
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    let best = null, least = REACH;
    for (const each of this.series) {
      for (const [step, value] of each.points) {
        const away = Math.hypot(this.x(step) - px, this.y(value) - py) + (each.colour === null ? 6 : 0);
        if (away < least) [best, least] = [{ each, step, value }, away];
      }
    }
    if (!best) return this.leave();
    this.heat(best.each.run);
    this.tip.textContent = `${best.each.label}: ${number(best.value)} at step ${Math.round(best.step)}`;
    this.tip.hidden = false;
    const left = Math.min(Math.max(0, px + 12), Math.max(0, box.width - this.tip.offsetWidth));
    this.tip.style.left = `${left}px`;
    const above = box.top - this.figure.getBoundingClientRect().top; // the caption's height
    this.tip.style.top = `${above + py + (py > 60 ? -this.tip.offsetHeight - 8 : 16)}px`;
  }

  leave() {
    this.heat(null);
    this.tip.hidden = true;
  }
}
