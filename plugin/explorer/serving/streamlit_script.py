"""What the server runs for `python -m plugin explore`, as `streamlit_app.py` is for `streamlit run`."""

from plugin.explorer.app import main

main()
