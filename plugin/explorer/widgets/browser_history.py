"""The browser's history gets one entry for each thing that the user does, with the view that this has led to.

Streamlit adds an entry whenever the address changes. A title at the top first leaves the address of its page without
parameters, or that of the page before with the parameters of the new one, and then the page completes it: going back
would show the same view again, or one that nobody has seen.
"""

from streamlit.delta_generator_singletons import get_dg_singleton_instance

_SCRIPT = """<script>
if (!window.historyOfViews) {
  window.historyOfViews = true
  const {pushState, replaceState} = window.history
  // Whether the user did something after the last entry.
  let acted = navigator.userActivation?.hasBeenActive !== false
  for (const kind of ['pointerdown', 'keydown', 'click', 'input', 'change', 'drop', 'paste']) {
    window.addEventListener(kind, () => { acted = true }, true)
  }
  window.history.pushState = function (...entry) {
    (acted ? pushState : replaceState).apply(this, entry)
    acted = false
  }
}
</script>"""


def keep_views_only() -> None:
    """Give the history of the browser an entry for each view."""
    # Among the elements of the page it would take the height of the gap between two of them.
    get_dg_singleton_instance().event_dg.html(_SCRIPT, unsafe_allow_javascript=True)
