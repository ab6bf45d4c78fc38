"""The worker: it reacts to what the web API has published. ``diator run meetings.worker:app`` runs it."""

from diator import Context, Diator, Reject, Retry
from meetings.contracts import UserJoined
from meetings.storage import REDIS_URL, Meetings, make_container

app = Diator("meetings-worker", broker=REDIS_URL, container=make_container(), retry=Retry(attempts=8))


@app.on_event(subscription="meetings.welcome")
async def welcome(event: UserJoined, context: Context, meetings: Meetings) -> None:
    if event.user == "nobody":
        raise Reject("there is nobody to welcome")  # a dead letter at once: trying again would not help
    print(f"welcome to meeting {event.meeting_id}, {event.user} (attempt {context.attempt})", flush=True)
    await meetings.add(event.meeting_id, "welcomed", event.user)  # a set: a message that comes twice changes nothing
