// Command p2pctl asks a running nar-p2pd how it is, and tells it what to do.
//
// Results go to standard output, for people or with --json for programs;
// errors go to standard error, with a hint where there is one. The exit code
// says what kind of error it was (exit.go).
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "p2pctl: %v\n", err)
	if hint := hintFor(cmd, err); hint != "" {
		fmt.Fprintf(stderr, "p2pctl: hint: %s\n", hint)
	}
	return exitCode(err)
}
