"""The explorer in the browser: `streamlit run streamlit_app.py`, or `python -m plugin explore`.

`app.PAGES` lists the pages. Its rooms from low to high; each imports from those above it in this list only:

    server, choices     jobs, downloads, time and memory; methods and rules by name
    inputs              networks, checkpoints, pictures, sets of images
    settings            what a page shows, and how a link says it
    maps                questions, answers, figures, files, programs
    widgets             what pages share on the screen
    pages               a folder each, which could be deleted

Streamlit is used in `widgets`, in `page.py` of each page, and in the files of `server` that meet the browser. The rest
serves tests and notebooks as well.
"""

from plugin.extras import require_own

require_own("gan")  # a folder `gan` beside the user's script would be found first
