package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/control"
)

func newPause(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "pause [DURATION]",
		Short: "share nothing until p2pctl resume, or for a time",
		Long: "Share nothing until p2pctl resume, or for a time such as 90m or 8h: peers get no\n" +
			"answer and nothing is announced. Fetching goes on. A restart does not end it.",
		Example: "  p2pctl pause\n  p2pctl pause 8h",
		Args:    usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var d time.Duration
			if len(args) > 0 {
				var err error
				if d, err = time.ParseDuration(args[0]); err != nil || d <= 0 {
					return usageError{fmt.Errorf("%.40q is no duration such as 90m or 8h", args[0])}
				}
			}
			s, err := o.client().Pause(cmd.Context(), d)
			return o.printSharing(cmd, s, err)
		},
	}
	return c
}

func newResume(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "resume",
		Short:   "share again after p2pctl pause",
		Example: "  p2pctl resume",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := o.client().Resume(cmd.Context())
			return o.printSharing(cmd, s, err)
		},
	}
}

func (o *options) printSharing(cmd *cobra.Command, s control.Sharing, err error) error {
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), s)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), sharingText(&s))
	return err
}

// sharingText says whether sharing is paused.
func sharingText(s *control.Sharing) string {
	switch {
	case !s.Paused && s.Metered:
		return "nothing is shared while the connection is metered"
	case !s.Paused:
		return "sharing"
	case s.Until.IsZero():
		return "paused until p2pctl resume"
	default:
		return "paused until " + s.Until.Local().Format(time.DateTime)
	}
}
