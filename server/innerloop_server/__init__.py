"""The innerloop server: task families, learners, sessions, scores and the processes they run in."""
