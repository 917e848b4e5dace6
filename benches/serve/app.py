"""sentence-transformers or fastembed behind uvicorn, for benches/serve: POST /v1/embeddings with one text.

usage: app.py sentence-transformers|fastembed MODEL_FOLDER PORT

As an application would have it: the model runs in uvicorn's thread pool, with as many threads as there are cores.
"""

import base64
import os
import sys
from pathlib import Path

import numpy as np
import uvicorn
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

name, folder, port = sys.argv[1:]
cores = len(os.sched_getaffinity(0))

sys.path.insert(0, str(Path(__file__).parents[1] / "embedder"))
from loops import with_fastembed, with_sentence_transformers  # noqa: E402

loops = {
    "fastembed": lambda: with_fastembed(Path(folder)),
    "sentence-transformers": with_sentence_transformers,
}
embed = loops[name]()
embed(["warm"])
limiter = None


async def embeddings(request):
    global limiter
    limiter = limiter or CapacityLimiter(cores)
    texts = (await request.json())["input"]
    vectors = await to_thread.run_sync(embed, texts, limiter=limiter)
    data = [
        {"object": "embedding", "index": index, "embedding": base64.b64encode(np.float32(vector).tobytes()).decode()}
        for index, vector in enumerate(vectors)
    ]
    return JSONResponse({"object": "list", "data": data, "model": name, "usage": {"prompt_tokens": 0, "total_tokens": 0}})


app = Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"])])
uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)
