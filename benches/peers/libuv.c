/* libuv as a peer: uv_poll_t and uv_timer_t, whose times are in milliseconds. It has no events with an fd and a timeout, and no common timeouts. */
#include "peer.h"
#include <uv.h>

static uv_loop_t loop;
static uv_poll_t **fd_events;
static uv_timer_t **timer_events, *inside;

static void lib_open(const char *method, unsigned flags)
{
	(void)flags;
	if (strcmp(method, "epoll") != 0)
		fail("libuv has epoll only");
	if (uv_loop_init(&loop) < 0)
		fail("uv_loop_init");
}

static void lib_look(void)
{
	uv_run(&loop, UV_RUN_NOWAIT);
}

static void lib_run(void)
{
	uv_run(&loop, UV_RUN_DEFAULT);
}

static void call(uv_timer_t *timer)
{
	void (**function)(void) = timer->data;
	(*function)();
}

static void lib_inside(void (*what)(void))
{
	static void (*function)(void);
	function = what;
	if (!inside) {
		inside = malloc(sizeof *inside);
		uv_timer_init(&loop, inside);
		inside->data = &function;
	}
	uv_timer_start(inside, call, 0, 0);
	lib_look();
}

static void lib_room(size_t fds, size_t timers)
{
	fd_events = calloc(fds, sizeof *fd_events);
	timer_events = calloc(timers, sizeof *timer_events);
}

static void readable(uv_poll_t *poll, int status, int what)
{
	size_t i = (size_t)poll->data;
	uv_os_fd_t fd;
	(void)status, (void)what;
	uv_fileno((uv_handle_t *)poll, &fd);
	on_read(fd, i);
}

static void lib_fd_new(size_t i, int fd, int once)
{
	if (once)
		fail("libuv has no such events");
	fd_events[i] = malloc(sizeof *fd_events[i]);
	if (uv_poll_init(&loop, fd_events[i], fd) < 0)
		fail("uv_poll_init");
	fd_events[i]->data = (void *)i;
}

static void lib_fd_add(size_t i)
{
	uv_poll_start(fd_events[i], UV_READABLE, readable);
}

static void lib_fd_add_for(size_t i, unsigned seconds)
{
	(void)i, (void)seconds;
	fail("libuv has no such events");
}

static void lib_fd_del(size_t i)
{
	uv_poll_stop(fd_events[i]);
}

static void due(uv_timer_t *timer)
{
	(void)timer;
	on_timer();
}

static void lib_timer_new(size_t i)
{
	timer_events[i] = malloc(sizeof *timer_events[i]);
	uv_timer_init(&loop, timer_events[i]);
}

static void lib_timer_set(size_t i, uint64_t microseconds)
{
	uv_timer_start(timer_events[i], due, (microseconds + 999) / 1000, 0);
}

static void lib_timer_del(size_t i)
{
	uv_timer_stop(timer_events[i]);
}

static int lib_common(uint64_t microseconds)
{
	(void)microseconds;
	return 0;
}

static void lib_timer_set_common(size_t i, unsigned number)
{
	(void)i, (void)number;
	fail("libuv has no common timeouts");
}

#include "work.h"
