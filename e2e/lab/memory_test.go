package lab

import (
	"slices"
	"testing"
)

func TestHierarchies(t *testing.T) {
	const (
		v1 = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n" +
			"32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n" +
			"35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
		unified = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
		v2      = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	)
	for _, tt := range []struct {
		name, own, mounts string
		want              []hierarchy
	}{
		{"version 1", "4:memory:/a/b\n1:cpu:/\n", v1, []hierarchy{{"/sys/fs/cgroup/memory/a/b", limit1}}},
		{
			"both", "4:memory:/a\n0::/c\n", v1 + unified,
			[]hierarchy{{"/sys/fs/cgroup/memory/a", limit1}, {"/sys/fs/cgroup/unified/c", limit2}},
		},
		{"version 2", "0::/user.slice/session\n", v2, []hierarchy{{"/sys/fs/cgroup/user.slice/session", limit2}}},
		{"version 2 in a container", "0::/docker/1\n", "9 8 0:26 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n", []hierarchy{{"/sys/fs/cgroup", limit2}}},
		{"with other controllers", "3:cpuset,memory:/\n", "9 8 0:1 / /cg rw - cgroup cgroup rw,cpuset,memory\n", []hierarchy{{"/cg", limit1}}},
		{"outside of what is mounted", "0::/other\n", "9 8 0:26 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n", nil},
		{"not mounted", "4:memory:/\n0::/\n", "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n", nil},
		{"none", "", "", nil},
	} {
		if got := hierarchies(tt.own, tt.mounts); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
