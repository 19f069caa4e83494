package main

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// twoCPUs returns two of the CPUs that this program may use.
func twoCPUs() (cpus [2]int, err error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return cpus, err
	}
	n := 0
	for cpu := 0; n < len(cpus) && cpu < 8*len(allowed)*8; cpu++ {
		if allowed.IsSet(cpu) {
			cpus[n] = cpu
			n++
		}
	}
	if n < len(cpus) {
		return cpus, errors.New("server and client need a CPU each, and there is only one")
	}
	return cpus, nil
}

// on has the programs that f starts run on one CPU.
func on(cpu int, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	only.Set(cpu)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		return err
	}
	return errors.Join(f(), unix.SchedSetaffinity(0, &before))
}
