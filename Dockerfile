# The page and the API of `llava-pose serve` in a container.
#
#   docker build -t llava-pose .
#   docker compose up            # with a key, on this machine's port 7860 (compose.yaml)
#
# The model that comes with the package is served; MODEL names another: a folder that is mounted, or a hub name.
FROM python:3.11-slim

# An own user, who owns nothing but a home for what a hub model brings.
RUN useradd --create-home --uid 1000 pose
WORKDIR /opt/llava-pose

# The libraries first: they change seldom, and take long.
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt torch==2.13.0

COPY pyproject.toml README.md LICENSE ./
COPY llava_pose llava_pose
RUN pip install --no-cache-dir -c constraints.txt '.[serve]'

USER 1000
WORKDIR /home/pose
ENV MODEL=embedded
EXPOSE 7860
# The page opens before the model is there, and says so: an unhealthy start is one that takes minutes.
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/health', timeout=4)"]
# A shell that becomes the server: signals reach it, and it finishes what it accepted.
CMD ["sh", "-c", "exec llava-pose serve --host 0.0.0.0 --model \"$MODEL\" --api-key-file /run/secrets/llava_pose_key"]
