// Search and filters of the answers; without scripts all of them are shown.
const STEP = 20;
const items = [...document.querySelectorAll('#items > article')];
const texts = items.map(item => item.textContent.toLowerCase());
const [form, query, kind, parted, found, more] =
  ['filters', 'query', 'kind', 'parted', 'found', 'more'].map(id => document.getElementById(id));
let room = STEP;

function matches(item, i, words) {
  return (!kind.value || item.dataset.kind === kind.value)
    && (!parted?.value || item.dataset.parted.split(' ').includes(parted.value))
    && words.every(word => texts[i].includes(word));
}

function marked(shown, words) {
  if (!CSS.highlights) return;
  const ranges = [];
  for (const item of words.length ? shown : []) {
    const walker = document.createTreeWalker(item, NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode());) {
      const text = node.textContent.toLowerCase();
      for (const word of words) {
        for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + word.length)) {
          if (at + word.length > node.length) break;
          const range = new Range();
          range.setStart(node, at);
          range.setEnd(node, at + word.length);
          ranges.push(range);
        }
      }
    }
  }
  CSS.highlights.set('found', new Highlight(...ranges));
}

function update() {
  const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
  const hits = items.filter((item, i) => matches(item, i, words));
  const shown = hits.slice(0, room);
  items.forEach(item => { item.hidden = true; });
  shown.forEach(item => { item.hidden = false; });
  found.value = hits.length ? `${shown.length} of ${hits.length} shown` : 'nothing found';
  more.hidden = shown.length === hits.length;
  marked(shown, words);
}

if (form) {
  form.hidden = false;
  form.addEventListener('submit', event => event.preventDefault());
  form.addEventListener('input', () => { room = STEP; update(); });
  more.addEventListener('click', () => {
    const first = room;
    room += STEP;
    update();
    const next = items.filter(item => !item.hidden)[first];
    next.tabIndex = -1;
    next.focus();
  });
  update();
}
