"""`restorer studio`: a page in the browser that restores a song and lets it be compared with the original.

The server is Starlette on uvicorn; the waveforms are drawn by wavesurfer.js 8.0.1 (BSD-3-Clause, its licence is
beside it in `page/`). Everything comes out of this package, nothing from other addresses.
"""
