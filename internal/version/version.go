// Package version tells which build of nar-p2p is running.
package version

import (
	"runtime/debug"
	"strings"
)

// override is set by the linker: -ldflags "-X
// github.com/nar-p2p/nar-p2p/internal/version.override=1.2.3".
var override string

// String returns the version: what the linker was told, else the module's
// version or the commit that the binary was built from, else "devel".
func String() string {
	if override != "" {
		return override
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return strings.TrimPrefix(v, "v")
	}
	return fromVCS(info.Settings)
}

// fromVCS returns "devel", followed by the commit and a mark for local changes
// where the build recorded them.
func fromVCS(settings []debug.BuildSetting) string {
	parts := []string{"devel"}
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			parts = append(parts, s.Value[:min(12, len(s.Value))])
		case s.Key == "vcs.modified" && s.Value == "true":
			parts = append(parts, "dirty")
		}
	}
	return strings.Join(parts, "-")
}
