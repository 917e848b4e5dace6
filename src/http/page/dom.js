// Elements. A text of others becomes a text node, never markup.

const $ = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';

const make = (tag, className, ...children) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
};
const set = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};
const show = (node, visible) => {
  node.hidden = !visible;
};

// A list whose items are updated in place, so that focus and open details stay.
const keyed = (list, create) => {
  const known = new Map();
  return (items, key) => {
    const keys = new Set(items.map(key));
    for (const [name, item] of known) {
      if (!keys.has(name)) {
        item.node.remove();
        known.delete(name);
      }
    }
    items.forEach((value, place) => {
      let item = known.get(key(value));
      if (!item) {
        item = create(value);
        known.set(key(value), item);
      }
      if (list.children[place] !== item.node) list.insertBefore(item.node, list.children[place] || null);
      item.update(value);
    });
  };
};
