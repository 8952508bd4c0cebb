// Hides the studies that lack a word of the search, with their entries in the contents and their questions.
(() => {
  addEventListener('beforeprint', () => { for (const each of document.querySelectorAll('details')) each.open = true; });
  const form = document.querySelector('.search');
  if (!form) return;  // one study
  const box = form.querySelector('input'), said = form.querySelector('p');
  const studies = [...document.querySelectorAll('section.study')].map(section => ({ section, stem: section.dataset.study, text: '' }));
  const entries = [...document.querySelectorAll('[data-of]')];
  const groups = [...document.querySelectorAll('[data-group]')];
  const plain = text => text.toLowerCase().replace(/\s+/g, ' ');
  form.hidden = false;

  const search = () => {
    const words = plain(box.value).trim().split(' ').filter(Boolean), found = new Set();
    for (const study of studies) {
      if (words.length) study.text ||= plain(`${study.stem} ${study.section.dataset.topic} ${study.section.textContent}`);
      study.section.hidden = !words.every(word => study.text.includes(word));
      if (!study.section.hidden) found.add(study.stem);
    }
    for (const entry of entries) entry.hidden = !found.has(entry.dataset.of);
    for (const group of groups) group.hidden = ![...group.querySelectorAll('section.study, [data-of]')].some(one => !one.hidden);
    said.textContent = words.length ? `${found.size} of ${studies.length} studies` : '';
  };
  box.addEventListener('input', search);
  box.addEventListener('keydown', event => {
    if (event.key === 'Escape') { box.value = ''; search(); }
  });
  form.addEventListener('submit', event => {
    event.preventDefault();
    const heading = document.querySelector('section.study:not([hidden]) [tabindex="-1"]');
    if (heading) { heading.scrollIntoView(); heading.focus({ preventScroll: true }); }
  });
  search();  // a browser may keep the words when the page is loaded again
})();
