"""The application: its container, and the features in it."""

import punq

from conference import attendance, meetings, notices
from diator import Diator

container = punq.Container()
container.register(meetings.MeetingBook, scope=punq.Scope.singleton)
container.register(attendance.AttendanceList, scope=punq.Scope.singleton)

app = Diator("conference", container=container)
app.include(meetings.router)
app.include(attendance.router)
app.include(notices.router)
