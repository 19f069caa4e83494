package doctor

import "fmt"

func ok(name, format string, args ...any) Check {
	return Check{Name: name, Verdict: OK, Finding: fmt.Sprintf(format, args...)}
}

func skipped(name, format string, args ...any) Check {
	return Check{Name: name, Verdict: Skipped, Finding: fmt.Sprintf(format, args...)}
}

func warning(name, remedy, format string, args ...any) Check {
	return Check{Name: name, Verdict: Warning, Finding: fmt.Sprintf(format, args...), Remedy: remedy}
}

func failed(name, remedy, format string, args ...any) Check {
	return Check{Name: name, Verdict: Failed, Finding: fmt.Sprintf(format, args...), Remedy: remedy}
}
