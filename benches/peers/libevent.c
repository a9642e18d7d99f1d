/* libevent as a peer: its core library, without locks (libevent_pthreads is not linked), as it is by default. */
#include "peer.h"
#include <event2/event.h>
#include <event2/event_struct.h>

static struct event_base *base;
static struct event **fd_events, **timer_events, *user;
static struct timeval commons[2];
static int common_count;

static void lib_open(const char *method, unsigned flags)
{
	struct event_config *config = event_config_new();
	for (const char **other = event_get_supported_methods(); *other; other++)
		if (strcmp(*other, method) != 0)
			event_config_avoid_method(config, *other);
	if (flags & 1)
		event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
	base = event_base_new_with_config(config);
	if (!base)
		fail("event_base_new_with_config");
	event_config_free(config);
}

static void lib_look(void)
{
	event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
}

static void lib_run(void)
{
	event_base_dispatch(base);
}

static void call(evutil_socket_t fd, short what, void *arg)
{
	void (**function)(void) = arg;
	(void)fd, (void)what;
	(*function)();
}

static void lib_inside(void (*what)(void))
{
	static void (*function)(void);
	function = what;
	if (!user)
		user = event_new(base, -1, EV_PERSIST, call, &function);
	event_active(user, EV_READ, 1);
	lib_look();
}

static void lib_room(size_t fds, size_t timers)
{
	fd_events = calloc(fds, sizeof *fd_events);
	timer_events = calloc(timers, sizeof *timer_events);
}

static void readable(evutil_socket_t fd, short what, void *arg)
{
	(void)what;
	on_read(fd, (size_t)arg);
}

static void lib_fd_new(size_t i, int fd, int once)
{
	fd_events[i] = event_new(base, fd, once ? EV_READ : EV_READ | EV_PERSIST, readable, (void *)i);
	if (!fd_events[i])
		fail("event_new");
}

static void lib_fd_add(size_t i)
{
	if (event_add(fd_events[i], NULL) < 0)
		fail("event_add");
}

static void lib_fd_add_for(size_t i, unsigned seconds)
{
	struct timeval timeout = { .tv_sec = seconds };
	if (event_add(fd_events[i], &timeout) < 0)
		fail("event_add");
}

static void lib_fd_del(size_t i)
{
	event_del(fd_events[i]);
}

static void due(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	on_timer();
}

static void lib_timer_new(size_t i)
{
	timer_events[i] = evtimer_new(base, due, NULL);
	if (!timer_events[i])
		fail("evtimer_new");
}

static void lib_timer_set(size_t i, uint64_t microseconds)
{
	struct timeval timeout = { .tv_sec = microseconds / 1000000, .tv_usec = microseconds % 1000000 };
	if (event_add(timer_events[i], &timeout) < 0)
		fail("event_add");
}

static void lib_timer_del(size_t i)
{
	event_del(timer_events[i]);
}

static int lib_common(uint64_t microseconds)
{
	struct timeval timeout = { .tv_sec = microseconds / 1000000, .tv_usec = microseconds % 1000000 };
	const struct timeval *common = event_base_init_common_timeout(base, &timeout);
	if (!common)
		return 0;
	commons[common_count++] = *common;
	return 1;
}

static void lib_timer_set_common(size_t i, unsigned number)
{
	if (event_add(timer_events[i], &commons[number]) < 0)
		fail("event_add");
}

#include "work.h"
