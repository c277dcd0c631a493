// Links the points of the page with the bars beside them. All numbers come from the block of JSON `cargo`.
(() => {
  'use strict';
  const BARS = 36;
  const cargo = JSON.parse(document.getElementById('cargo').textContent);
  const {n, d, k} = cargo;
  const unpack = (text, Kind) => {
    const raw = atob(text);
    const bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i += 1) { bytes[i] = raw.charCodeAt(i); }
    return new Kind(bytes.buffer);
  };
  const codes = unpack(cargo.codes, Int16Array);  // (k, d, n)
  const rest = unpack(cargo.rest, Float32Array);  // (d, n)
  const offset = unpack(cargo.offset, Float32Array);  // (d, n) or (d, 1)
  const value = unpack(cargo.value, Float32Array);  // (d, n)
  const norm = unpack(cargo.norm, Float32Array);
  const top = unpack(cargo.top, Int16Array);
  const groups = cargo.groups ? unpack(cargo.groups.values, cargo.groups.numeric ? Float32Array : Int16Array) : null;
  const shades = cargo.shades ? unpack(cargo.shades.codes, Uint8Array) : null;
  const planes = cargo.points ? unpack(cargo.points, Float32Array) : null;  // (d, n) where d > 2
  const everyone = Uint32Array.from({length: n}, (_, r) => r);
  const picked = {A: new Uint32Array(0), B: new Uint32Array(0)};
  let active = 'A';
  let source = null;
  let mapper = null;
  const at = (id) => document.getElementById(id);

  // --- sums over selections ----------------------------------------------------------------------------------

  const meanRow = (array, i, rows) => {
    if (array.length === d) { return array[i]; }
    let sum = 0;
    for (const r of rows) { sum += array[i * n + r]; }
    return sum / rows.length;
  };
  const meanOver = (rows) => {
    const parts = new Float64Array(k * d);
    for (let j = 0; j < k * d; j += 1) {
      let sum = 0;
      const start = j * n;
      for (const r of rows) { sum += codes[start + r]; }
      parts[j] = sum * cargo.step[j] / rows.length;
    }
    const outputs = [...Array(d).keys()];
    const [others, shift, total] = [rest, offset, value].map((array) => outputs.map((i) => meanRow(array, i, rows)));
    return {parts, others, shift, total, count: rows.length};
  };
  let overall = null;
  const everything = () => (overall ??= meanOver(everyone));
  const without = (a) => {  // means over all rows that are not in a
    const all = everything();
    const left = n - a.count;
    const apart = (x, y) => Float64Array.from(x, (v, i) => (n * v - a.count * y[i]) / left);
    return {
      parts: apart(all.parts, a.parts), others: apart(all.others, a.others), shift: apart(all.shift, a.shift),
      total: apart(all.total, a.total), count: left,
    };
  };
  const between = (a, b) => {  // contributions to the distance between two centroids
    const difference = Array.from(a.total, (v, i) => v - b.total[i]);
    const distance = Math.hypot(...difference);
    const scale = Math.max(...Array.from(a.total, Math.abs), ...Array.from(b.total, Math.abs));
    const u = difference.map((v) => (distance > 1e-12 * scale ? v / distance : 0));
    const along = (x, y) => u.reduce((sum, ui, i) => sum + ui * (x[i] - y[i]), 0);
    const bars = Float64Array.from({length: k}, (_, j) =>
      u.reduce((sum, ui, i) => sum + ui * (a.parts[j * d + i] - b.parts[j * d + i]), 0));
    return {bars, others: along(a.others, b.others), shift: along(a.shift, b.shift), total: along(a.total, b.total)};
  };
  const sizes = (rows, share) => {
    const bars = new Float64Array(k);
    let all = 0;
    for (const r of rows) {
      const scale = share ? (norm[r] > 0 ? 1 / norm[r] : 0) : 1;
      all += scale * norm[r];
    }
    for (let j = 0; j < k; j += 1) {
      let sum = 0;
      for (const r of rows) {
        let square = 0;
        for (let i = 0; i < d; i += 1) {
          const c = codes[(j * d + i) * n + r] * cargo.step[j * d + i];
          square += c * c;
        }
        sum += Math.sqrt(square) * (share ? (norm[r] > 0 ? 1 / norm[r] : 0) : 1);
      }
      bars[j] = sum / rows.length;
    }
    const total = all / rows.length;
    return {bars, others: total - bars.reduce((sum, v) => sum + v, 0), shift: null, total};
  };

  // --- the bars ----------------------------------------------------------------------------------------------

  const plain = (v) => Number(v.toPrecision(3)).toString();
  const percent = (v) => `${Number((100 * v).toPrecision(2))}\u202f%`;
  const text = (v) => (v === 0 ? '0' : (v > 0 ? '+' : '−') + Number(Math.abs(v).toPrecision(3)).toString());
  const points = (count) => `${count.toLocaleString('en').replaceAll(',', '\u202f')} point${count === 1 ? '' : 's'}`;
  const chosen = (name) => `the ${points(picked[name].length)} of ${name}`;
  const question = (view) => {
    const A = picked.A.length ? picked.A : everyone;
    const who = picked.A.length ? chosen('A') : `all ${points(n)}`;
    if (view === 'size') { return {...sizes(A, false), write: plain, title: `Size of contributions, mean over ${who}`}; }
    if (view === 'share') { return {...sizes(A, true), write: percent, title: `Share of each point’s contributions, mean over ${who}`}; }
    if (view === 'rest') {
      if (!picked.A.length || picked.A.length === n) { return {hint: 'Select points as A to see what holds them apart from the rest.'}; }
      const a = meanOver(picked.A);
      return {...between(a, without(a)), title: `What holds ${chosen('A')} apart from the other ${points(n - a.count)}`, apart: 'the centroids are'};
    }
    if (view === 'pair') {
      if (!picked.A.length || !picked.B.length) { return {hint: 'Select points as A and points as B to compare them.'}; }
      return {...between(meanOver(picked.A), meanOver(picked.B)), title: `What holds ${chosen('A')} apart from ${chosen('B')}`, apart: 'the centroids are'};
    }
    const i = Number(view.split(':')[1]);
    const mean = picked.A.length ? meanOver(picked.A) : everything();
    const bars = Float64Array.from({length: k}, (_, j) => mean.parts[j * d + i]);
    return {bars, others: mean.others[i], shift: mean.shift[i], total: mean.total[i], title: `Contributions to ${cargo.outputs[i]}, mean over ${who}`, apart: `${cargo.outputs[i]} is`};
  };
  const row = (name, number, low, high, kind, write) => {
    const line = document.createElement('tr');
    const head = document.createElement('th');
    head.scope = 'row';
    head.textContent = name;
    head.title = name;
    const cell = document.createElement('td');
    const frame = document.createElement('div');
    const bar = document.createElement('i');
    const span = high - low || 1;
    const from = Math.max(Math.min(0, number), low);
    const to = Math.min(Math.max(0, number), high);
    frame.style.setProperty('--zero', `${100 * -low / span}%`);
    bar.style.left = `${100 * (from - low) / span}%`;
    bar.style.width = `${100 * (to - from) / span}%`;
    bar.style.backgroundColor = kind ? '#9aa7b4' : number < 0 ? '#2166ac' : '#b2182b';
    if (number < low) { bar.className = 'beyond left'; }
    if (number > high) { bar.className = 'beyond'; }
    frame.append(bar);
    cell.append(frame);
    const last = document.createElement('td');
    last.textContent = write(number);
    line.append(head, cell, last);
    line.className = kind;
    line.dataset.value = String(number);
    line.dataset.feature = name;
    return line;
  };
  const draw = () => {
    const view = at('view').value;
    const found = question(view);
    const table = at('bars');
    table.dataset.view = view;
    table.dataset.picked = `${picked.A.length},${picked.B.length}`;
    if (found.hint) {
      at('bars-title').textContent = found.hint;
      at('total').textContent = '';
      table.replaceChildren();
      return;
    }
    const write = found.write ?? text;
    const order = [...found.bars.keys()].sort((a, b) => Math.abs(found.bars[b]) - Math.abs(found.bars[a]));
    const shown = order.slice(0, BARS);
    const hidden = order.slice(BARS);
    const others = found.others + hidden.reduce((sum, j) => sum + found.bars[j], 0);
    const count = cargo.others + hidden.length;
    const numbers = shown.map((j) => found.bars[j]);
    const low = Math.min(0, ...numbers);
    const high = Math.max(0, ...numbers);
    const lines = shown.map((j) => row(cargo.features[j], found.bars[j], low, high, '', write));
    const sums = [];
    if (count > 0) { sums.push(row(`${count} other feature${count > 1 ? 's' : ''}`, others, low, high, 'sum', write)); }
    if (found.shift !== null) { sums.push(row('offset', found.shift, low, high, 'sum', write)); }
    if (sums.length) { sums[0].classList.add('first-sum'); }
    table.replaceChildren(...lines, ...sums);
    const sum = numbers.reduce((a, b) => a + b, 0) + others + (found.shift ?? 0);
    table.dataset.sum = String(sum);
    table.dataset.total = String(found.total);
    const scale = numbers.reduce((a, b) => a + Math.abs(b), 0) + Math.abs(others) + Math.abs(found.shift ?? 0);
    const off = Math.abs(sum - found.total) / (scale || 1);
    at('bars-title').textContent = found.title;
    at('total').textContent = found.apart
      ? `All bars add up to ${text(sum)}; ${found.apart} ${text(found.total)}${view === 'rest' || view === 'pair' ? ' apart' : ''} (residual ${off.toExponential(0)}).`
      : `All bars add up to ${write(sum)}.`;
  };

  // --- the points --------------------------------------------------------------------------------------------

  const emphasise = () => {
    const {alpha, edge, stroke} = source.data;
    const any = picked.A.length + picked.B.length > 0;
    alpha.fill(any ? 0.18 : 0.85);
    edge.fill(0);
    stroke.fill(cargo.edge);
    [['A', 1], ['B', 2]].forEach(([name, code]) => {
      for (const r of picked[name]) { alpha[r] = 0.95; edge[r] = code; stroke[r] = cargo.mark; }
    });
    source.change.emit();
    document.querySelectorAll('.picks button[data-pick]').forEach((button) => {
      const name = button.dataset.pick;
      button.setAttribute('aria-pressed', String(name === active));
      button.querySelector('span').textContent = `${name}: ${points(picked[name].length)}`;
    });
  };
  const pick = (name, rows) => {
    const before = picked.B.length;
    picked[name] = Uint32Array.from(rows).sort();
    if (name === 'B' && !before && picked.B.length && picked.A.length) { at('view').value = 'pair'; }
    emphasise();
    draw();
  };
  const legend = (entries) => {
    at('legend').replaceChildren(...entries.map(({name, color, marker, rows}) => {
      const button = document.createElement('button');
      const dot = document.createElement('i');
      dot.style.backgroundColor = color;
      dot.className = marker;
      button.append(dot, name);
      button.title = `${name}: select these points as ${active}`;
      button.addEventListener('click', () => pick(active, rows()));
      return button;
    }));
  };
  const ramp = (low, high, what) => {
    const bar = document.createElement('div');
    bar.className = 'ramp';
    bar.style.background = `linear-gradient(to right, ${cargo.ramp.join(',')})`;
    const [left, right, name] = [low, high, what].map((word) => {
      const span = document.createElement('span');
      span.textContent = typeof word === 'number' ? Number(word.toPrecision(3)).toString() : word;
      return span;
    });
    at('legend').replaceChildren(name, left, bar, right);
  };
  const paint = (numbers, palette, low, high) => {
    source.data.shade.set(numbers);
    mapper.setv({palette, low, high});
    source.change.emit();
  };
  const categories = (members, names, colors, markers) => {
    const shown = Float32Array.from(members, (v) => (v < 0 ? NaN : v));
    paint(shown, colors.length > 1 ? colors : [colors[0], colors[0]], -0.5, Math.max(colors.length, 2) - 0.5);
    const entries = names.map((name, i) => ({
      name, color: colors[i], marker: markers[i], rows: () => everyone.filter((r) => members[r] === i),
    }));
    if (members.some((v) => v < 0)) {
      entries.push({name: 'others', color: cargo.pale, marker: '', rows: () => everyone.filter((r) => members[r] < 0)});
    }
    legend(entries);
  };
  const scale = (numbers, what) => {
    const sorted = Float32Array.from(numbers).filter(Number.isFinite).sort();
    const low = sorted.length ? sorted[Math.floor(0.01 * (sorted.length - 1))] : 0;
    const high = sorted.length ? sorted[Math.ceil(0.99 * (sorted.length - 1))] : 1;
    paint(numbers, cargo.ramp, low, high > low ? high : low + 1);
    ramp(low, high, what);
  };
  const colour = () => {
    const choice = at('colour').value;
    at('feature-label').hidden = !['contribution', 'value'].includes(choice);
    at('top-label').hidden = choice !== 'top';
    if (choice === 'group') {
      if (cargo.groups.numeric) { scale(groups, cargo.groups.name); return; }
      categories(groups, cargo.groups.categories, cargo.groups.colors, cargo.groups.markers);
    } else if (choice === 'top') {
      const count = Number(at('top').value);
      at('top-count').textContent = String(count);
      categories(top.map((v) => (v < count ? v : -1)), cargo.topNames.slice(0, count), cargo.topColors.slice(0, count),
        Array(count).fill(''));
    } else if (choice === 'none') {
      categories(new Int16Array(n), ['all points'], [cargo.plain], ['']);
    } else {
      const j = cargo.features.indexOf(at('feature').value);
      at('feature').setAttribute('aria-invalid', String(j < 0));
      if (j < 0) { return; }
      const numbers = new Float32Array(n);
      if (choice === 'value') {
        const [low, high] = cargo.shades.ends[j];
        for (let r = 0; r < n; r += 1) {
          const code = shades[j * n + r];
          numbers[r] = code === 255 ? NaN : low + (high - low) * code / 254;
        }
        scale(numbers, cargo.features[j]);
      } else {
        for (let r = 0; r < n; r += 1) {
          let square = 0;
          for (let i = 0; i < d; i += 1) { square += (codes[(j * d + i) * n + r] * cargo.step[j * d + i]) ** 2; }
          numbers[r] = Math.sqrt(square);
        }
        scale(numbers, `${cargo.features[j]}, size of its contribution`);
      }
    }
  };
  const axes = () => {
    ['x', 'y'].forEach((name) => {
      const i = Number(at(`axis-${name}`).value);
      source.data[name].set(planes.subarray(i * n, (i + 1) * n));
      Bokeh.documents.forEach((page) => page.get_model_by_name(`${name}-axis`)?.setv({axis_label: cargo.outputs[i]}));
    });
    source.change.emit();
  };

  const start = () => {
    ['shade', 'alpha', 'stroke'].forEach((name) => { source.data[name] = new Float32Array(n); });
    source.data.top = Array.from(top, (v) => (v < 0 ? 'another feature' : cargo.topNames[v]));
    if (groups) {
      source.data.group = Array.from(groups, (v) => (cargo.groups.numeric ? String(Number(v.toPrecision(4))) : cargo.groups.categories[v]));
    }
    source.selected.properties.indices.change.connect(() => pick(active, source.selected.indices));
    document.querySelectorAll('.picks button[data-pick]').forEach((button) => button.addEventListener('click', () => {
      active = button.dataset.pick;
      source.selected.indices = Array.from(picked[active]);
      emphasise();
    }));
    at('clear').addEventListener('click', () => {
      picked.A = new Uint32Array(0);
      picked.B = new Uint32Array(0);
      source.selected.indices = [];
      active = 'A';
      emphasise();
      draw();
    });
    at('view').addEventListener('change', draw);
    ['colour', 'feature', 'top'].forEach((id) => at(id).addEventListener('input', colour));
    if (planes) { ['axis-x', 'axis-y'].forEach((id) => at(id).addEventListener('change', axes)); }
    colour();
    emphasise();
    draw();
    document.body.dataset.ready = 'yes';
  };
  const wait = () => {
    const page = (window.Bokeh?.documents ?? []).find((found) => found.get_model_by_name('points'));
    if (!page || !page.is_idle) { window.setTimeout(wait, 30); return; }
    source = page.get_model_by_name('points');
    mapper = page.get_model_by_name('shades');
    start();
  };
  wait();
})();
