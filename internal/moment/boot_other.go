//go:build !linux

package moment

import "golang.org/x/sys/unix"

// bootClock goes on while a Mac sleeps, unlike Linux's of that name.
const bootClock = unix.CLOCK_MONOTONIC
