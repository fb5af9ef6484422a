"""The interface: one thin script per screen in ``screens``, shared Streamlit code in ``components``."""
