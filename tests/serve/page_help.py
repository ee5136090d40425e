"""Questions that the tests of the page ask a page, in JavaScript."""

from __future__ import annotations

# Visible texts whose contrast with what is behind them is under 4.5.
CONTRAST = """() => {
  const light = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const level = ([r, g, b]) => [r, g, b].map(v => light(v / 255))
    .reduce((sum, v, place) => sum + v * [.2126, .7152, .0722][place], 0);
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const ground = element => {
    for (let one = element; one; one = one.parentElement) {
      const color = numbers(getComputedStyle(one).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest('.sr')) continue;
    const [a, b] = [level(numbers(getComputedStyle(element).color)), level(ground(element))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) low.push([element.innerText, (a + .05) / (b + .05)]);
  }
  return low;
}"""
# Visible controls without a name.
UNNAMED = """() => [...document.querySelectorAll('button, input, select, canvas, a')]
  .filter(one => one.checkVisibility())
  .filter(one => !(one.innerText?.trim() || one.ariaLabel || one.labels?.length)).map(one => one.outerHTML)"""
