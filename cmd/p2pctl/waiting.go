package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// waitingAfter is how long something may take before a terminal says that it goes
// on, and how often that is said anew.
const waitingAfter = time.Second

// waiting does something of which nothing is to be seen before it is done, and
// meanwhile tells who sits at a terminal what is waited for.
func waiting(cmd *cobra.Command, what string, do func() error) error {
	if stderr := cmd.ErrOrStderr(); isTerminal(stderr) {
		ended, said := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(said)
			tell(stderr, what, ended)
		}()
		defer func() { close(ended); <-said }()
	}
	return do()
}

// tell says what is waited for until it has ended, and then wipes it away.
func tell(w io.Writer, what string, ended <-chan struct{}) {
	tick := time.NewTicker(waitingAfter)
	defer tick.Stop()
	for began, shown := time.Now(), false; ; shown = true {
		select {
		case <-tick.C:
			fmt.Fprintf(w, "\r%s ... %v ", what, time.Since(began).Round(time.Second))
		case <-ended:
			if shown {
				fmt.Fprint(w, "\r\x1b[K") // the rest of the line (ECMA-48)
			}
			return
		}
	}
}
