// Shows the runs that the address selects (#lora.ratio=4&seed=0) and that have the words of the search.
(() => {
  const form = document.querySelector('.search'), box = form.querySelector('input');
  const said = document.getElementById('shown'), all = document.getElementById('all');
  const keys = [...document.querySelectorAll('thead th')].map(head => head.dataset.key);
  const runs = [...document.querySelectorAll('tr.run')].map(row => {
    const cells = [...row.cells].map(cell => cell.textContent.trim());
    return { row, more: row.nextElementSibling, button: row.querySelector('button'), cells, text: cells.join(' ').toLowerCase() };
  });
  form.hidden = false;

  const show = () => {
    const wanted = [...new URLSearchParams(location.hash.slice(1))].filter(([key]) => keys.includes(key));
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const run of runs) {
      const selected = wanted.every(([key, value]) => run.cells[keys.indexOf(key)] === value);
      run.row.hidden = !(selected && words.every(word => run.text.includes(word)));
      run.more.hidden = run.row.hidden || run.button.getAttribute('aria-expanded') !== 'true';
      count += !run.row.hidden;
    }
    const settings = wanted.map(([key, value]) => `${key} = ${value}`).join(', ');
    said.textContent = `${count} of ${runs.length} runs${settings && `: ${settings}`}`;
    all.hidden = !wanted.length;
  };
  for (const run of runs) run.button.addEventListener('click', () => {
    run.button.setAttribute('aria-expanded', run.button.getAttribute('aria-expanded') !== 'true');
    show();
  });
  box.addEventListener('input', show);
  form.addEventListener('submit', event => event.preventDefault());
  addEventListener('hashchange', show);
  show();
})();
