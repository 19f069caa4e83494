package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

var cgroups atomic.Int32

// MemoryLimit is how much memory a program may have.
type MemoryLimit struct {
	// Under is the command under which it is to run.
	Under []string

	bytes int64
	// group is the control group, or "".
	group string
}

// MemoryLimit makes a control group whose programs have no more memory than so many
// bytes: they are killed where they want more. Where none can be made the limit is one
// to which Go keeps by itself, and Keeps finds out whether it does.
func (l *Lab) MemoryLimit(bytes int64) *MemoryLimit {
	l.t.Helper()
	h, ok := memoryHierarchy()
	if !ok {
		return &MemoryLimit{Under: []string{"env", fmt.Sprintf("GOMEMLIMIT=%d", bytes)}, bytes: bytes}
	}
	dir := filepath.Join(h.parent, fmt.Sprintf("%s%d-%d", homePrefix, os.Getpid(), cgroups.Add(1)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	// After the program: a group with processes cannot be removed.
	l.t.Cleanup(func() { _ = os.Remove(dir) })
	if err := os.WriteFile(filepath.Join(dir, h.limit), fmt.Append(nil, bytes), 0o644); err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	return &MemoryLimit{
		Under: []string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(dir, "cgroup.procs")},
		bytes: bytes, group: filepath.Base(dir),
	}
}

// Keeps looks, until stop is closed, at how much a daemon has that it was started
// with, and returns an error where that is more than it may have, or nothing holds it
// to that.
func (m *MemoryLimit) Keeps(d *Daemon, stop <-chan struct{}) error {
	if m.group != "" {
		groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", d.PID()))
		if err != nil {
			return err
		}
		if !strings.Contains(string(groups), "/"+m.group+"\n") {
			return fmt.Errorf("it is not in control group %s, but in\n%s", m.group, groups)
		}
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stop:
			return nil
		}
		// What it has of files the kernel takes back when it must.
		switch _, now, err := memoryOf(d.PID()); {
		case err != nil:
			return err
		case now.Anonymous > float64(m.bytes)/(1<<20):
			return fmt.Errorf("it has %.0f MiB, and may have %d", now.Anonymous, m.bytes>>20)
		}
	}
}

// MemoryLimits says in words what holds a program to a MemoryLimit.
func MemoryLimits() string {
	switch h, ok := memoryHierarchy(); {
	case !ok:
		return "Go's own (`GOMEMLIMIT`), for want of control groups, and watched"
	case h.limit == limit2:
		return "that of a control group, version 2"
	default:
		return "that of a control group, version 1"
	}
}

// The files of the limit, in the two versions of control groups.
const (
	limit1 = "memory.limit_in_bytes"
	limit2 = "memory.max"
)

// hierarchy is where groups can be made, and the name of the file for their limit.
type hierarchy struct{ parent, limit string }

// memoryHierarchy finds one in which groups for memory can be made.
func memoryHierarchy() (hierarchy, bool) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return hierarchy{}, false
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return hierarchy{}, false
	}
	for _, h := range hierarchies(string(own), string(mounts)) {
		probe, err := os.MkdirTemp(h.parent, homePrefix)
		if err != nil {
			continue
		}
		// In version 2 it is there if the parent hands the controller on.
		_, err = os.Stat(filepath.Join(probe, h.limit))
		_ = os.Remove(probe) // It is empty.
		if err == nil {
			return h, true
		}
	}
	return hierarchy{}, false
}

// hierarchies lists those that a process is in which may have a memory controller, by
// its files cgroup and mountinfo (cgroups(7), proc_pid_mountinfo(5)). A machine may have
// both versions mounted, and version 2 without that controller.
func hierarchies(own, mounts string) (all []hierarchy) {
	for line := range strings.Lines(own) {
		// hierarchy:controllers:path
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		version, option, limit := "cgroup2", "", limit2
		if fields[1] != "" {
			version, option, limit = "cgroup", "memory", limit1
			if !slices.Contains(strings.Split(fields[1], ","), option) {
				continue
			}
		}
		if at, ok := mountPoint(mounts, version, option, fields[2]); ok {
			all = append(all, hierarchy{at, limit})
		}
	}
	return all
}

// mountPoint returns where a path of a hierarchy is, which has an option where that is
// not "".
func mountPoint(mounts, version, option, path string) (string, bool) {
	for line := range strings.Lines(mounts) {
		// id parent device root at options [tags] - type source options
		before, after, _ := strings.Cut(strings.TrimSpace(line), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) < 5 || len(right) < 3 || right[0] != version {
			continue
		}
		if option != "" && !slices.Contains(strings.Split(right[2], ","), option) {
			continue
		}
		if inside, err := filepath.Rel(left[3], path); err == nil && filepath.IsLocal(inside) {
			return filepath.Join(left[4], inside), true
		}
	}
	return "", false
}
