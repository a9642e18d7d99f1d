/*
 * libevent's own base, doing what a sequence says, and writing down what it sees: what real.rs does with the client's.
 *
 * Sequences come on stdin and what was seen goes to stdout, both as words and numbers (libevent.rs has the other side). libevent asks this program for the
 * time and to wait, for a program's own functions come before the C library's: so the clock is one that is set, and a wait is a look.
 */
#define _GNU_SOURCE
#include <event2/event.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { SIGNAL_PORT = 5 };
enum { EVENTS = 6, GUARD = EVENTS, PORTS = 5, WIRES = 4, MOST_CALLS = 40, MOST_BYTES = 20, PIPE = 65536 };
enum { ADD, DEL, REMOVE_TIMER, ACTIVATE, SET_PRIORITY, FREE, ACTIVE_BY_FD, WRITE, READ, FILL, DRAIN, HALF_CLOSE, CLOSE, REOPEN, ADVANCE, UPDATE_TIME, BREAK, EXIT, CONTINUE, ACTIVATE_TIMES, ACTIVE_BY_SIGNAL, RAISE, FINALIZE };
enum { SOCKET, READ_END, WRITE_END };

#define NS 1000000000ULL
#define MS 1000000ULL
#define START NS

struct act { int code, of; long long with; };
struct slot { struct event *event; int port; struct act script[2]; long long count; int finalizing; };
struct wire { int far, unread, full, half_closed, closed; };

static struct event_base *base;
static struct slot slots[EVENTS + 1];
static struct wire wires[WIRES];
static int near[PORTS] = { -1, -1, -1, -1, -1 };
static char scratch[PIPE];
static const struct timeval *common;
static unsigned long long now;
static long long common_ms, timer;
static int waits, calls, waited, ending;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static struct timeval tv(unsigned long long ns)
{
	return (struct timeval){ ns / NS, ns % NS / 1000 };
}

/* What libevent is told of the time, and how it waits. */

static void did_wait(void)
{
	waited = 0;
	int active = 0;
	for (int i = 0; i <= GUARD; i++)
		active += slots[i].event && slots[i].event->ev_evcallback.evcb_flags & EVLIST_ACTIVE;
	printf("C %d", active);
	for (int i = 0; i <= GUARD; i++) {
		struct event *event = slots[i].event;
		if (event && event->ev_evcallback.evcb_flags & EVLIST_ACTIVE)
			printf(" %d %d", i, slots[i].finalizing ? 0 : event->ev_res);
	}
	printf("\n");
}

/* libevent takes the time when it has waited, and made active what is ready: then it is looked at. */
int clock_gettime(clockid_t clock, struct timespec *to)
{
	(void)clock;
	if (waited)
		did_wait();
	*to = (struct timespec){ now / NS, now % NS };
	return 0;
}

int gettimeofday(struct timeval *restrict to, void *restrict zone)
{
	(void)zone;
	*to = tv(now);
	return 0;
}

/* libevent's epoll waits by a timerfd: no rounding, no limit. It is never armed. */
int timerfd_settime(int fd, int flags, const struct itimerspec *to, struct itimerspec *old)
{
	(void)fd, (void)flags, (void)old;
	timer = to->it_value.tv_sec * NS + to->it_value.tv_nsec;
	return 0;
}

/* `timeout` is negative if the wait could last for ever. */
static void wait_for(long long timeout)
{
	int guard = ++waits >= MOST_CALLS || timeout < 0;
	printf("P %lld %d\n", timeout, guard);
	if (guard)
		event_active(slots[GUARD].event, 0, 1);
	else
		now += timeout;
	waited = 1;
}

int epoll_wait(int fd, struct epoll_event *events, int most, int timeout)
{
	wait_for(timeout < 0 ? (timer ? timer : -1) : (long long)(timeout * MS));
	return syscall(SYS_epoll_pwait, fd, events, most, 0, NULL, 0);
}

int poll(struct pollfd *fds, nfds_t count, int timeout)
{
	wait_for(timeout < 0 ? -1 : (long long)(timeout * MS));
	struct timespec none = { 0, 0 };
	return syscall(SYS_ppoll, fds, count, &none, NULL, 0);
}

int select(int most, fd_set *restrict in, fd_set *restrict out, fd_set *restrict except, struct timeval *restrict timeout)
{
	wait_for(!timeout ? -1 : (long long)(timeout->tv_sec * NS + timeout->tv_usec * 1000));
	struct timespec none = { 0, 0 };
	return syscall(SYS_pselect6, most, in, out, except, &none, NULL);
}

/* The wires, as in wires.rs. */

static int wire_of(int port)
{
	return (int[]){ 0, 1, 0, 2, 3 }[port];
}

static int kind_of(int port)
{
	return (int[]){ SOCKET, SOCKET, SOCKET, READ_END, WRITE_END }[port];
}

static int open_wire(int wire, int *far)
{
	int pair[2];
	if (wire < 2 ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) : pipe2(pair, O_NONBLOCK | O_CLOEXEC))
		fail("a wire");
	*far = pair[wire < 3];
	return pair[wire == 3];
}

static void open_new(int port)
{
	int wire = wire_of(port), far, fd = open_wire(wire, &far);
	if (wires[wire].far >= 0)
		close(wires[wire].far);
	wires[wire] = (struct wire){ .far = far };
	for (int p = 0; p < PORTS; p++) {
		if (wire_of(p) != wire)
			continue;
		if (near[p] < 0)
			near[p] = dup(fd);
		else if (dup2(fd, near[p]) < 0)
			fail("dup2");
	}
	close(fd);
}

static void fill(int port)
{
	struct wire *wire = &wires[wire_of(port)];
	if (kind_of(port) == READ_END || wire->closed || wire->full)
		return;
	while (write(near[port], scratch, PIPE) > 0) {}
	wire->full = 1;
}

static void drain(int port)
{
	struct wire *wire = &wires[wire_of(port)];
	if (wire->full)
		while (read(wire->far, scratch, PIPE) > 0) {}
	wire->full = 0;
}

static void write_to(int port, int n)
{
	struct wire *wire = &wires[wire_of(port)];
	if (kind_of(port) == WRITE_END || wire->closed || wire->half_closed || wire->unread + n > MOST_BYTES)
		return;
	if (write(wire->far, scratch, n) != n)
		fail("write");
	wire->unread += n;
}

static int read_from(int port, int n)
{
	struct wire *wire = &wires[wire_of(port)];
	if (n > wire->unread)
		n = wire->unread;
	if (n > 0 && read(near[port], scratch, n) != n)
		fail("read");
	wire->unread -= n;
	return n;
}

static void half_close(int port)
{
	struct wire *wire = &wires[wire_of(port)];
	if (kind_of(port) != SOCKET || wire->closed)
		return;
	shutdown(wire->far, SHUT_WR);
	wire->half_closed = 1;
}

static void close_far(int port)
{
	struct wire *wire = &wires[wire_of(port)];
	if (wire->far >= 0)
		close(wire->far);
	*wire = (struct wire){ .far = -1, .unread = wire->unread, .half_closed = wire->half_closed, .closed = 1 };
}

/* What can be done. */

static struct timeval *timeout(long long ms, struct timeval *to)
{
	if (ms < 0)
		return NULL;
	*to = common && ms == common_ms ? *common : tv(ms * MS);
	return to;
}

static void finalized(struct event *event, void *arg);

static int act_on_event(struct act act)
{
	struct slot *slot = &slots[act.of];
	struct event *event = slot->event;
	struct timeval time;
	switch (act.code) {
	case ADD:
		return event_add(event, timeout(act.with, &time));
	case DEL:
		return event_del(event);
	case REMOVE_TIMER:
		return event_remove_timer(event);
	case ACTIVATE:
		event_active(event, act.with, 1);
		return 0;
	case ACTIVATE_TIMES:
		event_active(event, EV_SIGNAL, act.with);
		return 0;
	case FINALIZE:
		slot->finalizing = 1;
		return event_finalize(0, event, finalized);
	case SET_PRIORITY:
		return event_priority_set(event, act.with);
	default:
		event_free(event);
		slot->event = NULL;
		return 0;
	}
}

static int act_on_rest(struct act act)
{
	struct timeval time;
	switch (act.code) {
	case ACTIVE_BY_FD:
		event_base_active_by_fd(base, near[act.of], act.with);
		break;
	case WRITE:
		write_to(act.of, act.with);
		break;
	case FILL:
		fill(act.of);
		break;
	case DRAIN:
		drain(act.of);
		break;
	case HALF_CLOSE:
		half_close(act.of);
		break;
	case CLOSE:
		close_far(act.of);
		break;
	case REOPEN:
		for (int i = 0; i < EVENTS; i++)
			if (slots[i].event && slots[i].port >= 0 && slots[i].port < PORTS && wire_of(slots[i].port) == wire_of(act.of))
				event_del(slots[i].event);
		open_new(act.of);
		break;
	case ADVANCE:
		now += act.with * MS;
		break;
	case UPDATE_TIME:
		return event_base_update_cache_time(base);
	case BREAK:
		return event_base_loopbreak(base);
	case EXIT:
		time = tv(act.with * MS);
		return event_base_loopexit(base, act.with < 0 ? NULL : &time);
	case ACTIVE_BY_SIGNAL:
		event_base_active_by_signal(base, SIGRTMIN);
		break;
	case RAISE:
		for (int i = 0; i < act.with; i++)
			raise(SIGRTMIN);
		break;
	case CONTINUE:
		return event_base_loopcontinue(base);
	}
	return 0;
}

static int is_of_event(struct act act)
{
	return act.code <= FREE || act.code == ACTIVATE_TIMES || act.code == FINALIZE;
}

static void act(struct act act)
{
	if (act.code < 0)
		return;
	if (act.code == READ)
		printf("D 3 %d\n", read_from(act.of, act.with));
	else if (is_of_event(act) && (!slots[act.of].event || (act.code == FREE && slots[act.of].finalizing)))
		printf("D 2 0\n");
	else
		printf("D %d 0\n", (is_of_event(act) ? act_on_event(act) : act_on_rest(act)) < 0);
}

static long long left(struct event *event)
{
	if (!(event->ev_evcallback.evcb_flags & EVLIST_TIMEOUT))
		return -1;
	/* The upper bits say which common timeout it is. */
	unsigned long long at = event->ev_timeout.tv_sec * NS + (event->ev_timeout.tv_usec & 0xfffff) * 1000;
	return at > now ? at - now : 0;
}

static int pending(struct event *event)
{
	return event_pending(event, EV_TIMEOUT | EV_READ | EV_WRITE | EV_SIGNAL | EV_CLOSED, NULL);
}

/* Callbacks of libevent's own that are active: the one that reads which signals came, and that of a common timeout. */
static int find_own(const struct event_base *of, const struct event *event, void *to)
{
	(void)of;
	int flags = event->ev_evcallback.evcb_flags;
	if (flags & EVLIST_INTERNAL && flags & EVLIST_ACTIVE)
		((int *)to)[event->ev_fd < 0] = 1;
	return 0;
}

static void say_called(struct slot *slot, int what, int pending, long long left)
{
	struct timeval cached;
	event_base_gettimeofday_cached(base, &cached);
	unsigned long long time = cached.tv_sec * NS + cached.tv_usec * 1000;
	int own[2] = { 0, 0 };
	event_base_foreach_event(base, find_own, own);
	printf("K %d %d %d %lld %llu %d %d %d %d\n", (int)(slot - slots), what, pending, left, time, event_base_got_exit(base),
	       event_base_get_num_events(base, EVENT_BASE_COUNT_ACTIVE), own[0], own[1]);
}

static void called(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	struct slot *slot = arg;
	struct act script[2];
	memcpy(script, slot->script, sizeof script);
	slot->count++;
	say_called(slot, what, pending(slot->event), left(slot->event));
	act(script[0]);
	act(script[1]);
	if (++calls >= MOST_CALLS)
		event_base_loopbreak(base);
}

/* As new: that is all that libevent allows of it here. */
static void finalized(struct event *event, void *arg)
{
	if (ending)
		return;
	struct slot *slot = arg;
	slot->finalizing = 0;
	say_called(slot, EV_FINALIZE, 0, -1);
	int what = event->ev_events, priority = event->ev_evcallback.evcb_pri;
	event_assign(event, base, event->ev_fd, what, called, slot);
	event_priority_set(event, priority);
	if (++calls >= MOST_CALLS)
		event_base_loopbreak(base);
}

static void new_event(int number, int port, int what, int priority, const struct act script[2])
{
	struct slot *slot = &slots[number];
	if (slot->finalizing)
		return;
	struct event *event = event_new(base, port < 0 ? -1 : port == SIGNAL_PORT ? SIGRTMIN : near[port], what, called, slot);
	if (!event)
		fail("event_new");
	if (priority >= 0)
		printf("D %d 0\n", event_priority_set(event, priority) < 0);
	if (slot->event)
		event_free(slot->event);
	*slot = (struct slot){ .event = event, .port = port, .script = { script[0], script[1] } };
}

static void state(void)
{
	for (int i = 0; i <= GUARD; i++) {
		struct event *event = slots[i].event;
		if (event)
			printf("E %d %d %lld %d %lld\n", i, pending(event), left(event), event_get_priority(event), slots[i].count);
	}
	printf("B %d %d %d %d\n", event_base_get_num_events(base, EVENT_BASE_COUNT_ACTIVE),
	       event_base_get_num_events(base, EVENT_BASE_COUNT_ADDED), event_base_got_exit(base), event_base_got_break(base));
}

static long long number(void)
{
	long long n;
	if (scanf("%lld", &n) != 1)
		exit(2);
	return n;
}

static struct act next_act(void)
{
	struct act act;
	act.code = number();
	act.of = number();
	act.with = number();
	return act;
}

static void start(void)
{
	char method[16];
	if (scanf("%15s", method) != 1)
		exit(2);
	int priorities = number(), most_calls = number();
	long long most_time = number();
	int limited_from = number(), changelist = number();
	common_ms = number();
	now = START;
	struct event_config *config = event_config_new();
	for (const char **other = event_get_supported_methods(); *other; other++)
		if (strcmp(*other, method) != 0)
			event_config_avoid_method(config, *other);
	event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV | EVENT_BASE_FLAG_PRECISE_TIMER);
	if (changelist)
		event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
	struct timeval time = tv(most_time * MS);
	if (most_calls >= 0 || most_time >= 0)
		event_config_set_max_dispatch_interval(config, most_time < 0 ? NULL : &time, most_calls, limited_from);
	base = event_base_new_with_config(config);
	if (!base || event_base_priority_init(base, priorities))
		fail("event_base_new_with_config");
	event_config_free(config);
	time = tv(common_ms * MS);
	common = common_ms < 0 ? NULL : event_base_init_common_timeout(base, &time);
	for (int wire = 0; wire < WIRES; wire++)
		wires[wire].far = -1;
	for (int port = 0; port < PORTS; port++)
		if (port != 2)
			open_new(port);
	new_event(GUARD, -1, EV_PERSIST, -1, (struct act[]){ { BREAK, 0, 0 }, { -1, 0, 0 } });
}

static void end(void)
{
	for (int i = 0; i <= GUARD; i++) {
		if (slots[i].event && !slots[i].finalizing)
			event_free(slots[i].event);
	}
	ending = 1;
	event_base_free(base);
	ending = 0;
	for (int i = 0; i <= GUARD; i++) {
		if (slots[i].finalizing)
			free(slots[i].event);
		slots[i] = (struct slot){ 0 };
	}
	for (int port = 0; port < PORTS; port++) {
		if (port != 2)
			close_far(port);
		close(near[port]);
		near[port] = -1;
	}
}

static void loop(int flags)
{
	calls = waits = 0;
	int code = event_base_loop(base, flags);
	int own[2] = { 0, 0 };
	event_base_foreach_event(base, find_own, own);
	printf("L %d %d %d\n", code, own[0], own[1]);
}

static void told(int severity, const char *text)
{
	if (severity >= EVENT_LOG_ERR)
		fprintf(stderr, "libevent: %s\n", text);
}

int main(int argc, char **argv)
{
	(void)argv;
	/* Of edge beside level on one fd it says so, as evd does, and does not change the older ones without a word. */
	if (argc > 1)
		event_enable_debug_mode();
	event_set_log_callback(told);
	/* When nobody asks for it, it does nothing. */
	signal(SIGRTMIN, SIG_IGN);
	char word[8];
	while (scanf("%7s", word) == 1) {
		switch (*word) {
		case 's':
			start();
			continue;
		case 'n': {
			int event = number(), port = number(), what = number(), priority = number();
			struct act first = next_act(), second = next_act();
			new_event(event, port, what, priority, (struct act[]){ first, second });
			break;
		}
		case 'd':
			act(next_act());
			break;
		case 'l':
			loop(number());
			break;
		case 'e':
			end();
			printf("end\n");
			fflush(stdout);
			continue;
		}
		state();
	}
	return 0;
}
