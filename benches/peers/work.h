/*
 * The work of a peer, in the roles that the bench asks for: the program's one argument. ours.rs does the same, call for call.
 */

static int *pipes;
static uint64_t pairs, left, written, seen, failed;

static void open_pipes(uint64_t count)
{
	pairs = count;
	pipes = calloc(count * 2, sizeof *pipes);
	for (uint64_t i = 0; i < count; i++)
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pipes + 2 * i) < 0)
			fail("socketpair");
}

static void put(uint64_t pair)
{
	if (send(pipes[2 * pair + 1], "e", 1, MSG_NOSIGNAL) != 1)
		failed++;
	written++;
}

static void on_read(int fd, size_t i)
{
	char byte;
	if (recv(fd, &byte, 1, 0) == 1)
		seen++;
	else
		failed++;
	if (left > 0) {
		left--;
		put(i + 1 == pairs ? 0 : i + 1);
	}
}

static const char *method_name(uint64_t number)
{
	static const char *names[] = { "epoll", "poll", "select" };
	return number < 3 ? names[number] : "?";
}

/*
 * The shapes of libevent's bench: hears the number of pairs, how many are active at first, how many are written to by callbacks, the method, the flags.
 * In each round, that many times: deletes and adds each event, looks once, writes to the active ones, and loops until all has been read. Says how long all of
 * this took, how long the loop at its end, and how many turns that had.
 */
static void shapes(void)
{
	uint64_t told[5], runs;
	hear(told, 5);
	lib_open(method_name(told[3]), (unsigned)told[4]);
	open_pipes(told[0]);
	lib_room(pairs, 0);
	for (uint64_t i = 0; i < pairs; i++) {
		lib_fd_new(i, pipes[2 * i], 0);
		lib_fd_add(i);
	}
	say(NULL, 0);
	for (;;) {
		uint64_t took[3] = { 0, 0, 0 };
		hear(&runs, 1);
		say(NULL, 0);
		for (; runs > 0; runs--) {
			uint64_t start = spent(), loop, end;
			for (uint64_t i = 0; i < pairs; i++) {
				lib_fd_del(i);
				lib_fd_add(i);
			}
			lib_look();
			seen = written = 0;
			for (uint64_t i = 0; i < told[1]; i++)
				put(i * (pairs / told[1]));
			left = told[2];
			loop = spent();
			do {
				lib_look();
				took[2]++;
			} while (seen < written);
			end = spent();
			took[0] += end - start;
			took[1] += end - loop;
		}
		if (failed)
			fail("a callback with nothing to read");
		say(took, 3);
	}
}

/*
 * The cascade: hears the number of pairs, and the method. In each round, that many times: adds all events, each to run once and with a timeout of 60 s,
 * writes to the first, of which each writes to the next, and runs until none is left. Says how long it took.
 */
static void cascade(void)
{
	uint64_t told[2], runs;
	hear(told, 2);
	lib_open(method_name(told[1]), 0);
	open_pipes(told[0]);
	lib_room(pairs, 0);
	for (uint64_t i = 0; i < pairs; i++)
		lib_fd_new(i, pipes[2 * i], 1);
	say(NULL, 0);
	for (;;) {
		uint64_t took = 0;
		hear(&runs, 1);
		say(NULL, 0);
		for (; runs > 0; runs--) {
			uint64_t start = spent();
			for (uint64_t i = 0; i < pairs; i++)
				lib_fd_add_for(i, 60);
			seen = written = 0;
			left = pairs - 1;
			put(0);
			lib_run();
			took += spent() - start;
			if (failed || seen != pairs)
				fail("the cascade has stopped");
		}
		say(&took, 1);
	}
}

#define HOUR 3600000000u

static uint64_t some, many, common_timers, fired, took_by[4];

static void on_timer(void)
{
	fired++;
}

static void set_far(uint64_t i, uint64_t from)
{
	if (common_timers)
		lib_timer_set_common(i, 0);
	else
		lib_timer_set(i, from + random_below(20u * HOUR));
}

static void fill(void)
{
	for (uint64_t i = 0; i < many; i++)
		set_far(i, HOUR);
}

static void use(void)
{
	uint64_t at = spent(), next;
	for (uint64_t i = many; i < many + some; i++)
		set_far(i, HOUR);
	next = spent();
	took_by[0] = next - at, at = next;
	for (uint64_t i = 0; i < some; i++)
		set_far(random_below(many), HOUR);
	next = spent();
	took_by[1] = next - at, at = next;
	for (uint64_t i = 0; i < some; i++)
		set_far(random_below(many), 21u * (uint64_t)HOUR);
	next = spent();
	took_by[2] = next - at, at = next;
	/* In another order: 7919 has no divisor in common with their number. */
	for (uint64_t i = 0; i < some; i++)
		lib_timer_del(many + i * 7919 % some);
	took_by[3] = spent() - at;
}

static void set_near(void)
{
	for (uint64_t i = many; i < many + some; i++)
		if (common_timers)
			lib_timer_set_common(i, 1);
		else
			lib_timer_set(i, 1 + random_below(10000));
}

/*
 * Timers: hears how many there are all the time, how many are added, moved, ... in each round, and whether they are set to common timeouts. In each round, in a
 * callback: adds some, moves random ones to a random time, moves random ones to a late time, cancels those that were added. Then, not counted, it sets those to a time that
 * comes soon, lets it come, and runs them. Says how long each of the five took.
 */
static void timers(void)
{
	uint64_t told[3], round;
	hear(told, 3);
	many = told[0], some = told[1], common_timers = told[2];
	lib_open("epoll", 0);
	if (common_timers && (!lib_common(20u * (uint64_t)HOUR) || !lib_common(5000)))
		fail("no common timeouts");
	lib_room(0, many + some);
	for (uint64_t i = 0; i < many + some; i++)
		lib_timer_new(i);
	lib_inside(fill);
	say(NULL, 0);
	for (;;) {
		uint64_t took[5], start;
		hear(&round, 1);
		say(NULL, 0);
		lib_inside(use);
		memcpy(took, took_by, sizeof took_by);
		fired = 0;
		lib_inside(set_near);
		if (fired)
			fail("a timer that came too early");
		start = now();
		while (now() < start + 20000000)
			;
		start = spent();
		while (fired < some)
			lib_look();
		took[4] = spent() - start;
		say(took, 5);
	}
}

/*
 * Memory: hears how many events on fds and how many timers. Says what is in use before, when all are made, and when all are added.
 */
static void weigh(void)
{
	uint64_t told[2], out[6];
	int *fds;
	hear(told, 2);
	lib_open("epoll", 0);
	open_pipes(1);
	/* The first one brings what a base costs anyway; it is on an fd and a timer of its own. */
	fds = calloc(told[0] + 1, sizeof *fds);
	for (uint64_t i = 0; i <= told[0]; i++)
		if ((fds[i] = dup(pipes[0])) < 0)
			fail("dup");
	lib_room(told[0] + 1, told[1] + 1);
	lib_fd_new(told[0], fds[told[0]], 0);
	lib_fd_add(told[0]);
	lib_timer_new(told[1]);
	lib_timer_set(told[1], HOUR);
	lib_look();
	say(NULL, 0);
	memory(out);
	for (uint64_t i = 0; i < told[0]; i++)
		lib_fd_new(i, fds[i], 0);
	for (uint64_t i = 0; i < told[1]; i++)
		lib_timer_new(i);
	memory(out + 2);
	for (uint64_t i = 0; i < told[0]; i++)
		lib_fd_add(i);
	for (uint64_t i = 0; i < told[1]; i++)
		lib_timer_set(i, HOUR + random_below(HOUR));
	lib_look();
	memory(out + 4);
	say(out, 6);
	hear(told, 1);
}

int main(int argc, char **argv)
{
	static const struct { const char *name; void (*role)(void); } roles[] = {
		{ "shapes", shapes }, { "cascade", cascade }, { "timers", timers }, { "memory", weigh },
	};
	for (size_t i = 0; argc == 2 && i < sizeof roles / sizeof *roles; i++)
		if (strcmp(argv[1], roles[i].name) == 0) {
			roles[i].role();
			return 0;
		}
	fail("no such role");
}
