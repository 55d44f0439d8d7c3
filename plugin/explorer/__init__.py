"""The explorer in the browser: `streamlit run streamlit_app.py`.

The pages are in `views/` and hold Streamlit only. What they show is computed by the modules beside this one, which know
nothing of Streamlit and serve tests and notebooks as well; `controls` and `caches` are the glue in between.
"""
