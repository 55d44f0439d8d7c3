"""The explorer: `streamlit run streamlit_app.py`."""

from plugin.explorer.app import main

main()
