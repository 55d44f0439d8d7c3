"""The script of the server for `python -m plugin explore`, as `streamlit_app.py` is for `streamlit run`."""

from plugin.explorer.app import main

main()
