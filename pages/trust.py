"""The address ``/trust`` on a fresh server: hand over to ``app.py``.

Until ``app.py`` has run once, Streamlit takes the files of this folder for the screens; without this one, the first
visitor of a server who follows a link to /trust is told that the page does not exist.
"""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).resolve().parents[1] / "app.py"), run_name="__main__")
