package documents

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// module is a go.mod file, as "go mod edit -json" has it.
type module struct {
	Require []struct {
		Path     string
		Indirect bool
	}
	Replace []struct{ Old, New struct{ Path string } }
}

// modules returns the go.mod files of the repository, by path.
func modules(t *testing.T) map[string]*module {
	t.Helper()
	files := make(map[string]*module)
	for _, pattern := range []string{"go.mod", "*/go.mod", "*/*/go.mod", ".ci/*/go.mod"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json", path).Output()
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			files[path] = new(module)
			if err := json.Unmarshal(text, files[path]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if files[filepath.Join(root, "go.mod")] == nil {
		t.Fatal("there is no go.mod")
	}
	return files
}

// TestEveryDependencyHasAReason holds docs/dependencies.md to go.mod.
func TestEveryDependencyHasAReason(t *testing.T) {
	var wanted []string
	for _, r := range modules(t)[filepath.Join(root, "go.mod")].Require {
		if !r.Indirect {
			wanted = append(wanted, r.Path)
		}
	}
	var listed []string
	for _, cells := range rows(t, "docs/dependencies.md") {
		module := strings.Trim(cells[0], "`")
		if !strings.Contains(module, ".") {
			continue // a table of something else
		}
		if len(cells) < 2 || cells[1] == "" {
			t.Errorf("%s has no reason", module)
		}
		listed = append(listed, module)
	}
	slices.Sort(wanted)
	slices.Sort(listed)
	for _, module := range wanted {
		if !slices.Contains(listed, module) {
			t.Errorf("docs/dependencies.md does not say what %s is for", module)
		}
	}
	for i, module := range listed {
		if !slices.Contains(wanted, module) {
			t.Errorf("docs/dependencies.md lists %s, which go.mod does not require directly", module)
		}
		if i > 0 && listed[i-1] == module {
			t.Errorf("docs/dependencies.md lists %s twice", module)
		}
	}
}

// TestNothingIsReplaced wants every module to be what it is called.
func TestNothingIsReplaced(t *testing.T) {
	for path, file := range modules(t) {
		for _, r := range file.Replace {
			t.Errorf("%s replaces %s by %s", path, r.Old.Path, r.New.Path)
		}
	}
}

// TestToolsArePinned wants whatever is installed while building and checking to
// have a version.
func TestToolsArePinned(t *testing.T) {
	exact := regexp.MustCompile(`^v\d+\.\d+\.\d+$`)
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	versions := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^([A-Z_]+_VERSION)\s*:=\s*(\S+)$`).FindAllStringSubmatch(string(text), -1) {
		versions[m[1]] = m[2]
	}
	installed := 0
	scripts, err := filepath.Glob(filepath.Join(root, ".ci", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(scripts, filepath.Join(root, "Makefile")) {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // a folder
		}
		for _, m := range regexp.MustCompile(`(?:go|\$\(GO\)|\$GO|"\$GO") (?:install|run) (\S+)@(\S+)`).FindAllStringSubmatch(string(text), -1) {
			installed++
			version := strings.Trim(m[2], `"'`)
			if name, ok := strings.CutPrefix(version, "$("); ok {
				version = versions[strings.TrimSuffix(name, ")")]
			}
			if !exact.MatchString(version) {
				t.Errorf("%s installs %s at %q, which is no version", path, m[1], m[2])
			}
		}
	}
	if installed < 3 {
		t.Errorf("found %d tools that are installed: the test looks for them in the wrong way", installed)
	}
}
