"""Links that act inside the session: one small component that listens to clicks on every card and copy button.

Streamlit opens an ordinary link as a new session, about a second away. This component catches plain clicks on
``a[data-go]`` and hands the link to Python instead; a click with a modifier key, or without JavaScript, follows the
link as ever. It also marks the current prediction in the list at once, moves along the list with the arrow keys, gives
the focus back to the link that had it, and copies the address for ``button[data-copy]``.
"""

from __future__ import annotations

from streamlit.components import v2

from pages.components import session
from pages.components.html import element

# The function runs again on every rerun: the listeners are registered once per tab, the newest closure is kept.
_SCRIPT = """
export default function (component) {
  const { data, setTriggerValue } = component;
  const here = (window.__influence ||= {});
  here.go = (link) => setTriggerValue("go", link);
  here.mark = (id) => {
    if (id === null) return; // the list marks its first row itself
    let moved = false;
    for (const a of document.querySelectorAll("a[data-pick]")) {
      const on = a.dataset.pick === id;
      if (on === (a.getAttribute("aria-current") === "true")) continue;
      if (on) { a.setAttribute("aria-current", "true"); moved = a; } else a.removeAttribute("aria-current");
    }
    if (moved) moved.scrollIntoView({ block: "nearest" });
  };
  here.current = data.current;
  here.mark(here.current);
  if (here.ready) return;
  here.ready = true;
  let due = false;
  new MutationObserver(() => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      here.mark(here.current);
      if (performance.now() < here.until && document.activeElement === document.body) {
        const back = [...document.querySelectorAll("a[data-go]")].find((a) => a.getAttribute("href") === here.focus);
        if (back) back.focus({ preventScroll: true });
      }
    });
  }).observe(document.body, { childList: true, subtree: true });
  document.addEventListener("click", (event) => {
    const copy = event.target.closest("button[data-copy]");
    if (copy) return copyAddress(copy);
    const a = event.target.closest("a[data-go]");
    if (!a || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    here.focus = a.getAttribute("href");
    here.until = performance.now() + 3000; // a later loss of focus is not ours to mend
    if (a.dataset.pick !== undefined) { here.current = a.dataset.pick; here.mark(here.current); }
    here.go(a.getAttribute("href"));
  });
  document.addEventListener("keydown", (event) => {
    const a = event.target.closest && event.target.closest("a[data-pick]");
    if (!a || (event.key !== "ArrowDown" && event.key !== "ArrowUp")) return;
    const next = event.key === "ArrowDown" ? a.nextElementSibling : a.previousElementSibling;
    if (next) { event.preventDefault(); next.focus(); }
  });
  async function copyAddress(button) {
    let done = true;
    try { await navigator.clipboard.writeText(window.location.href); } catch {
      const box = document.createElement("textarea");
      box.value = window.location.href;
      document.body.append(box);
      box.select();
      done = document.execCommand("copy");
      box.remove();
    }
    const before = button.dataset.copy;
    button.textContent = done ? "✓ Link copied" : "Copy the address bar";
    setTimeout(() => { button.textContent = before; }, 2000);
  }
}
"""


def listen(current: str | None) -> None:
    """Mount the component: once per run, and early, because a click before it listens loads the page anew.

    Args:
        current: Id of the prediction to mark in the list; empty for none, None to leave the marks as they are.
    """
    component = v2.component("influence_links", js=_SCRIPT)
    component(key=session.LINKS, data={"current": current}, on_go_change=session.follow_link)


def copy_button(label: str = "Copy link") -> str:
    """Return a button that copies the address of this view and says so."""
    return element("button", label, css="if-copy", type="button", data_copy=label, aria_live="polite")
