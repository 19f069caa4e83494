package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

const (
	appName    = "nar-p2p"
	socketName = "control.sock"
)

// environment holds the variables of the process.
type environment map[string]string

func environmentOf(environ []string) environment {
	env := make(environment, len(environ))
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
	}
	return env
}

// first returns the first of the colon-separated directories with which
// systemd sets $STATE_DIRECTORY and $RUNTIME_DIRECTORY.
func (e environment) first(name string) string {
	dir, _, _ := strings.Cut(e[name], ":")
	return dir
}

// xdg returns the application's folder in an XDG base directory, or "" without
// a home. Relative values are ignored, as the specification demands.
func (e environment) xdg(name, fallback string) string {
	if dir := e[name]; filepath.IsAbs(dir) {
		return filepath.Join(dir, appName)
	}
	if fallback == "" || e["HOME"] == "" {
		return ""
	}
	return filepath.Join(e["HOME"], fallback, appName)
}

func stateDir(env environment) string {
	if dir := env.first("STATE_DIRECTORY"); dir != "" {
		return dir
	}
	return env.xdg("XDG_STATE_HOME", ".local/state")
}

func controlSocket(env environment, stateDir string) string {
	return socketsIn(env, stateDir, os.Geteuid() == 0)[0]
}

// socketsIn lists where a daemon may have its socket, in order of precedence.
func socketsIn(env environment, stateDir string, system bool) []string {
	var dirs []string
	if dir := env.first("RUNTIME_DIRECTORY"); dir != "" {
		dirs = append(dirs, dir)
	}
	if dir := env.xdg("XDG_RUNTIME_DIR", ""); dir != "" {
		dirs = append(dirs, dir)
	}
	if system {
		dirs = append(dirs, "/run/"+appName)
	}
	if stateDir != "" {
		dirs = append(dirs, stateDir)
	}
	for i, dir := range dirs {
		dirs[i] = filepath.Join(dir, socketName)
	}
	return dirs
}

// ClientSockets lists where p2pctl looks for the daemon's socket, in order of
// precedence: the daemon of this user, then the system's.
func ClientSockets(environ []string) []string {
	env := environmentOf(environ)
	return socketsIn(env, stateDir(env), true)
}

// Folder is where configuration of this user belongs.
func Folder(environ []string) (string, error) {
	if os.Geteuid() == 0 {
		return filepath.Join("/etc", appName), nil
	}
	if dir := environmentOf(environ).xdg("XDG_CONFIG_HOME", ".config"); dir != "" {
		return dir, nil
	}
	return "", errors.New("neither $XDG_CONFIG_HOME nor $HOME says where configuration belongs")
}

// defaultFiles lists the configuration files of which the first that exists is
// read where none is named.
func defaultFiles(env environment) []string {
	var files []string
	if dir := env.xdg("XDG_CONFIG_HOME", ".config"); dir != "" {
		files = append(files, filepath.Join(dir, "config.toml"))
	}
	return append(files, filepath.Join("/etc", appName, "config.toml"))
}
