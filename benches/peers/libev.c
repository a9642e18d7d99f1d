/* libev as a peer. It always collects changes until the next wait, and it has no events with an fd and a timeout, and no common timeouts. */
#include "peer.h"
#include <ev.h>

static struct ev_loop *loop;
static ev_io **fd_events;
static ev_timer **timer_events;

static void lib_open(const char *method, unsigned flags)
{
	unsigned backend = strcmp(method, "epoll") == 0 ? EVBACKEND_EPOLL : strcmp(method, "poll") == 0 ? EVBACKEND_POLL : EVBACKEND_SELECT;
	(void)flags;
	loop = ev_loop_new(backend);
	if (!loop)
		fail("ev_loop_new");
}

static void lib_look(void)
{
	ev_run(loop, EVRUN_NOWAIT);
}

static void lib_run(void)
{
	ev_run(loop, 0);
}

/* It takes the time once for each turn, in a callback or not. A callback would not do: what is fed to the loop runs before it looks for timers, in the same turn. */
static void lib_inside(void (*what)(void))
{
	ev_now_update(loop);
	what();
}

static void lib_room(size_t fds, size_t timers)
{
	fd_events = calloc(fds, sizeof *fd_events);
	timer_events = calloc(timers, sizeof *timer_events);
}

static void readable(struct ev_loop *l, ev_io *io, int what)
{
	(void)l, (void)what;
	on_read(io->fd, (size_t)io->data);
}

static void lib_fd_new(size_t i, int fd, int once)
{
	if (once)
		fail("libev has no such events");
	fd_events[i] = malloc(sizeof *fd_events[i]);
	ev_io_init(fd_events[i], readable, fd, EV_READ);
	fd_events[i]->data = (void *)i;
}

static void lib_fd_add(size_t i)
{
	ev_io_start(loop, fd_events[i]);
}

static void lib_fd_add_for(size_t i, unsigned seconds)
{
	(void)i, (void)seconds;
	fail("libev has no such events");
}

static void lib_fd_del(size_t i)
{
	ev_io_stop(loop, fd_events[i]);
}

static void due(struct ev_loop *l, ev_timer *timer, int what)
{
	(void)l, (void)timer, (void)what;
	on_timer();
}

static void lib_timer_new(size_t i)
{
	timer_events[i] = malloc(sizeof *timer_events[i]);
	ev_timer_init(timer_events[i], due, 0., 0.);
}

/* As its documentation advises: ev_timer_again moves a timer that runs, and starts one that does not. */
static void lib_timer_set(size_t i, uint64_t microseconds)
{
	timer_events[i]->repeat = (double)microseconds * 1e-6;
	ev_timer_again(loop, timer_events[i]);
	/* It is to run once, so it does not start again by itself. */
	timer_events[i]->repeat = 0.;
}

static void lib_timer_del(size_t i)
{
	ev_timer_stop(loop, timer_events[i]);
}

static int lib_common(uint64_t microseconds)
{
	(void)microseconds;
	return 0;
}

static void lib_timer_set_common(size_t i, unsigned number)
{
	(void)i, (void)number;
	fail("libev has no common timeouts");
}

#include "work.h"
