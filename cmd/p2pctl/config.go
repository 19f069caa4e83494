package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/control"
)

func newConfig(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "show, check, find and reload the daemon's settings",
		Args:  usage(cobra.NoArgs),
		RunE:  group,
	}
	c.AddCommand(newConfigShow(o), newConfigCheck(o), newConfigPath(o), newConfigReload(o))
	return c
}

func newConfigShow(o *options) *cobra.Command {
	var changed bool
	c := &cobra.Command{
		Use:   "show [KEY...]",
		Short: "show what the daemon runs with, and where each value comes from",
		Long: "Show what the daemon runs with, and where each value comes from: the file, a\n" +
			"variable of the environment, a flag, or the defaults. A KEY may be the name of a\n" +
			"table, for all that is in it.",
		Example:           "  p2pctl config show --changed\n  p2pctl config show p2p upstream",
		ValidArgsFunction: completeKeys,
		RunE: func(cmd *cobra.Command, keys []string) error {
			cfg, err := o.client().Config(cmd.Context())
			if err != nil {
				return err
			}
			if cfg.Settings, err = selected(cfg.Settings, keys, changed); err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd.OutOrStdout(), cfg)
			}
			return printConfig(cmd.OutOrStdout(), &cfg)
		},
	}
	c.Flags().BoolVar(&changed, "changed", false, "only what is not a default")
	return c
}

// selected returns the settings that are named, or all where none is.
func selected(all []config.Effective, keys []string, changed bool) ([]config.Effective, error) {
	picked := []config.Effective{}
	found := make(map[string]bool)
	for _, s := range all {
		named := len(keys) == 0
		for _, key := range keys {
			if s.Key == key || strings.HasPrefix(s.Key, key+".") {
				named, found[key] = true, true
			}
		}
		if named && (!changed || s.Origin != config.OriginDefault) {
			picked = append(picked, s)
		}
	}
	for _, key := range keys {
		if !found[key] {
			return nil, usageError{fmt.Errorf("there is no key %q", key)}
		}
	}
	return picked, nil
}

func printConfig(w io.Writer, cfg *control.Config) error {
	t := table(w)
	fmt.Fprintln(t, "KEY\tVALUE\tFROM")
	for _, s := range cfg.Settings {
		values := s.Values
		if len(values) == 0 {
			values = []string{"-"}
		}
		for i, value := range values {
			if i == 0 {
				fmt.Fprintf(t, "%s\t%s\t%s\n", s.Key, printable(value), printable(s.Origin))
			} else {
				fmt.Fprintf(t, "\t%s\t\n", printable(value))
			}
		}
	}
	return t.Flush()
}

func newConfigCheck(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "check [FILE]",
		Short:   "check a configuration file without a daemon",
		Example: "  p2pctl config check config.toml",
		Long: "Check a configuration file, or the one that nar-p2pd would read here, as the\n" +
			"daemon does at its start. \"nar-p2pd --check\" looks at the files that the settings\n" +
			"name too.",
		Args:              usage(cobra.MaximumNArgs(1)),
		ValidArgsFunction: once(completeFiles),
		RunE: func(cmd *cobra.Command, args []string) error {
			flags := pflag.NewFlagSet("", pflag.ContinueOnError)
			config.AddFlags(flags)
			if len(args) > 0 {
				if err := flags.Set("config", args[0]); err != nil {
					return err
				}
			}
			cfg, err := config.Load(flags, os.Environ())
			if err != nil {
				return err
			}
			if cfg.File == "" {
				return fmt.Errorf("%w: no configuration file at %s", errNotFound, strings.Join(config.Files(os.Environ()), " or "))
			}
			if o.json {
				return printJSON(cmd.OutOrStdout(), map[string]string{"file": cfg.File})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is fine\n", cfg.File)
			return err
		},
	}
}

func newConfigPath(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "path",
		Short:   "print the configuration file that nar-p2pd reads",
		Example: "  $EDITOR $(p2pctl config path)",
		Long: "Print the file that the running daemon has read; where none runs, the one that\n" +
			"would be read if this user started it.",
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, err := config.File(os.Environ())
			if cfg, fromDaemon := o.client().Config(cmd.Context()); fromDaemon == nil {
				file, err = cfg.File, nil
			}
			switch {
			case err != nil:
				return err
			case file == "":
				return fmt.Errorf("%w: there is none; it would be looked for at %s", errNotFound, strings.Join(config.Files(os.Environ()), " and then "))
			case o.json:
				return printJSON(cmd.OutOrStdout(), map[string]string{"file": file})
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), file)
			return err
		},
	}
}

func newConfigReload(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "reload",
		Short:   "have the daemon read its settings again",
		Example: "  p2pctl config reload",
		Long: "Have the daemon read its settings again, as SIGHUP does. What can change without a\n" +
			"restart does at once, and what cannot is named. With a mistake in them nothing\n" +
			"changes.",
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			told, err := o.client().Reload(cmd.Context())
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd.OutOrStdout(), told)
			}
			for _, key := range told.Applied {
				cmd.Printf("%s: counts now\n", key)
			}
			for _, key := range told.Restart {
				cmd.Printf("%s: needs a restart\n", key)
			}
			if told.Note != "" {
				cmd.Println(told.Note)
			}
			if len(told.Applied)+len(told.Restart) == 0 {
				cmd.Println("nothing has changed")
			}
			return nil
		},
	}
}
