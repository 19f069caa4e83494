package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/psk"
)

// check reports what is wrong with the files that checked settings name. It makes
// none, and opens no port.
func check(cfg *config.Config, stdout io.Writer) error {
	var errs []error
	readable := func(key, path string) {
		if path == "" {
			return
		}
		f, err := os.Open(path)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	readable("p2p.allow_file", cfg.P2P.AllowFile)
	readable("store.cache", cfg.Store.Cache)
	for i, u := range cfg.Upstreams {
		readable(fmt.Sprintf("upstream: number %d: netrc", i+1), u.Netrc)
		readable(fmt.Sprintf("upstream: number %d: token_file", i+1), u.TokenFile)
	}
	if cfg.Store.Kind == config.StoreNix {
		_, err := os.Stat(nixDatabase(&cfg.Store))
		errs = append(errs, withKey("store.root", err))
	}
	if cfg.P2P.PSKFile != "" {
		_, err := psk.Load(cfg.P2P.PSKFile)
		errs = append(errs, withKey("p2p.psk_file", err))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	read := "no file: all settings are defaults, from the environment or from flags"
	if cfg.File != "" {
		read = filepath.Clean(cfg.File)
	}
	_, err := fmt.Fprintf(stdout, "nar-p2pd: the settings are fine (%s)\n", read)
	return err
}

func withKey(key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", key, err)
}
