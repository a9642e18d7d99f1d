/*
 * What the peers share: numbers to and from the bench, the clock, a look at the memory.
 *
 * Standard input is a socket to the bench: a count, then that many numbers of 64 bits, in both directions, before and after what is measured and never during
 * it. It is the same protocol as that of the bench's own roles.
 *
 * A peer includes this, defines what is declared under "the library", and includes work.h, which does the work: so the work is the same whatever the library.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
	fprintf(stderr, "peer: %s: %s\n", what, errno ? strerror(errno) : "failed");
	exit(1);
}

static void transfer(int in, void *at, size_t size)
{
	char *bytes = at;
	while (size > 0) {
		ssize_t n = in ? read(0, bytes, size) : write(0, bytes, size);
		if (n == 0)
			exit(0); /* the bench has what it wanted */
		if (n < 0)
			fail("standard input");
		bytes += n;
		size -= (size_t)n;
	}
}

static void say(const uint64_t *numbers, uint64_t count)
{
	transfer(0, &count, sizeof count);
	transfer(0, (void *)numbers, count * sizeof *numbers);
}

/* Waits for at most `most` numbers; what does not come is 0. */
static void hear(uint64_t *numbers, uint64_t most)
{
	uint64_t count;
	transfer(1, &count, sizeof count);
	if (count > most)
		fail("too many numbers");
	memset(numbers, 0, most * sizeof *numbers);
	transfer(1, numbers, count * sizeof *numbers);
}

static uint64_t nanoseconds(clockid_t clock)
{
	struct timespec at;
	clock_gettime(clock, &at);
	return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

/* Of the clock that never jumps. */
static uint64_t now(void)
{
	return nanoseconds(CLOCK_MONOTONIC);
}

/* Of processor time of this process: what else runs on the machine is not in it. */
static uint64_t spent(void)
{
	return nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
}

/* The same numbers in every peer, and in ours: xorshift. */
static uint64_t random_below(uint64_t below)
{
	static uint64_t x = 0x9e3779b97f4a7c15u;
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x % below;
}

/* What malloc has given out, with its own headers, and what is resident of this process alone: both in bytes. */
static void memory(uint64_t into[2])
{
	struct mallinfo2 info = mallinfo2();
	char line[256];
	unsigned long kib = 0;
	FILE *status = fopen("/proc/self/status", "r");
	if (!status)
		fail("/proc/self/status");
	while (fgets(line, sizeof line, status))
		if (sscanf(line, "RssAnon: %lu", &kib) == 1)
			break;
	fclose(status);
	into[0] = info.uordblks + info.hblkhd;
	into[1] = (uint64_t)kib * 1024;
}

/* The work, for the library's callbacks. */
static void on_read(int fd, size_t i);
static void on_timer(void);

/* The library. Events are numbered, in the order in which they are made. */

/* A base of this method, by libevent's name. Flags: 1, changes are collected until the next wait if the library can do that when it is asked. */
static void lib_open(const char *method, unsigned flags);
/* One turn without waiting. */
static void lib_look(void);
/* Runs until nothing is pending. */
static void lib_run(void);
/* Calls `what` in a callback, that is, where the library knows the time already. */
static void lib_inside(void (*what)(void));
/* Room for that many events on fds, and timers: an array of pointers at most. */
static void lib_room(size_t fds, size_t timers);
/* An event that calls on_read(fd, i) whenever fd is readable; or, `once`, the first time only. Not added yet. */
static void lib_fd_new(size_t i, int fd, int once);
static void lib_fd_add(size_t i);
/* With a timeout in seconds, which never comes; only for events that are `once`. */
static void lib_fd_add_for(size_t i, unsigned seconds);
static void lib_fd_del(size_t i);
/* A timer that calls on_timer(). Not set yet. */
static void lib_timer_new(size_t i);
/* Sets it, or sets it anew. */
static void lib_timer_set(size_t i, uint64_t microseconds);
static void lib_timer_del(size_t i);
/* Declares a time that many timers are set to; lib_timer_set_common sets one to the time declared last but `before`. 0: the library knows no such thing. */
static int lib_common(uint64_t microseconds);
static void lib_timer_set_common(size_t i, unsigned number);
