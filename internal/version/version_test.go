package version

import (
	"runtime/debug"
	"testing"
)

func TestFromVCS(t *testing.T) {
	tests := map[string]struct {
		settings []debug.BuildSetting
		want     string
	}{
		"nothing recorded": {nil, "devel"},
		"commit":           {[]debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "false"}}, "devel-0123456789ab"},
		"local changes":    {[]debug.BuildSetting{{Key: "vcs.revision", Value: "0123"}, {Key: "vcs.modified", Value: "true"}}, "devel-0123-dirty"},
	}
	for name, tt := range tests {
		if got := fromVCS(tt.settings); got != tt.want {
			t.Errorf("%s: fromVCS() = %q, want %q", name, got, tt.want)
		}
	}
	if String() == "" {
		t.Error("String() is empty")
	}
}
