package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
)

var cgroups atomic.Int32

// MemoryLimit returns a command under which a program has no more memory than so
// many bytes: it is killed where it wants more. Where control groups cannot be made
// it returns one under which Go keeps to that by itself.
func (l *Lab) MemoryLimit(bytes int64) (under []string) {
	l.t.Helper()
	parent, limit, ok := memoryGroup()
	if !ok {
		return []string{"env", fmt.Sprintf("GOMEMLIMIT=%d", bytes)}
	}
	dir := filepath.Join(parent, fmt.Sprintf("%s%d-%d", homePrefix, os.Getpid(), cgroups.Add(1)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	// After the program: a group with processes cannot be removed.
	l.t.Cleanup(func() { _ = os.Remove(dir) })
	if err := os.WriteFile(filepath.Join(dir, limit), fmt.Append(nil, bytes), 0o644); err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	return []string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(dir, "cgroup.procs")}
}

// MemoryLimits says in words what holds a program to MemoryLimit.
func MemoryLimits() string {
	switch _, limit, ok := memoryGroup(); {
	case !ok:
		return "Go's own (`GOMEMLIMIT`), for want of control groups"
	case limit == "memory.max":
		return "that of a control group, version 2"
	default:
		return "that of a control group, version 1"
	}
}

// memoryGroup returns the folder in which control groups for memory can be made, and
// the name of the file for the limit.
func memoryGroup() (parent, limit string, ok bool) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", "", false
	}
	for line := range strings.Lines(string(text)) {
		// hierarchy:controllers:path, see cgroups(7).
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		switch fields[1] {
		case "memory":
			parent, limit = filepath.Join("/sys/fs/cgroup/memory", fields[2]), "memory.limit_in_bytes"
		case "":
			parent, limit = filepath.Join("/sys/fs/cgroup", fields[2]), "memory.max"
		default:
			continue
		}
		probe, err := os.MkdirTemp(parent, homePrefix)
		if err != nil {
			continue
		}
		_, err = os.Stat(filepath.Join(probe, limit))
		_ = os.Remove(probe) // It is empty.
		if err == nil {
			return parent, limit, true
		}
	}
	return "", "", false
}
