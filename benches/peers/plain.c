/* No library: an epoll and an array. What the system calls and the work alone cost, which no library can go below. It has no timers at all. */
#include "peer.h"
#include <sys/epoll.h>

#define BATCH 1024

static int ep;
static struct watch { int fd, once; } *watches;
static size_t added;

static void lib_open(const char *method, unsigned flags)
{
	(void)flags;
	if (strcmp(method, "epoll") != 0)
		fail("epoll only");
	ep = epoll_create1(EPOLL_CLOEXEC);
	if (ep < 0)
		fail("epoll_create1");
}

static void turn(int timeout)
{
	static struct epoll_event events[BATCH];
	int count = epoll_wait(ep, events, BATCH, timeout);
	for (int at = 0; at < count; at++) {
		size_t i = events[at].data.u64;
		if (watches[i].once)
			lib_fd_del(i);
		on_read(watches[i].fd, i);
	}
}

static void lib_look(void)
{
	turn(0);
}

static void lib_run(void)
{
	while (added > 0)
		turn(-1);
}

static void lib_inside(void (*what)(void))
{
	what();
}

static void lib_room(size_t fds, size_t timers)
{
	(void)timers;
	watches = calloc(fds, sizeof *watches);
}

static void lib_fd_new(size_t i, int fd, int once)
{
	watches[i].fd = fd;
	watches[i].once = once;
}

static void lib_fd_add(size_t i)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = i };
	if (epoll_ctl(ep, EPOLL_CTL_ADD, watches[i].fd, &event) < 0)
		fail("epoll_ctl");
	added++;
}

static void lib_fd_add_for(size_t i, unsigned seconds)
{
	(void)seconds;
	lib_fd_add(i);
}

static void lib_fd_del(size_t i)
{
	struct epoll_event event = { 0 };
	if (epoll_ctl(ep, EPOLL_CTL_DEL, watches[i].fd, &event) < 0)
		fail("epoll_ctl");
	added--;
}

static void lib_timer_new(size_t i)
{
	(void)i, (void)on_timer;
}

static void lib_timer_set(size_t i, uint64_t microseconds)
{
	(void)i, (void)microseconds;
	fail("no timers");
}

static void lib_timer_del(size_t i)
{
	(void)i;
}

static int lib_common(uint64_t microseconds)
{
	(void)microseconds;
	return 0;
}

static void lib_timer_set_common(size_t i, unsigned number)
{
	(void)number;
	lib_timer_set(i, 0);
}

#include "work.h"
