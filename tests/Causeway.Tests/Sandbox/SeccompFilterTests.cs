using System.Globalization;
using System.Runtime.InteropServices;
using Causeway.Cli.Sandbox;
using Causeway.Linux;

namespace Causeway.Tests.Sandbox;

/// <summary>The filter itself, put in force by a C program in a child for each call: the kernel says what it does.</summary>
public sealed class SeccompFilterTests
{
    // Reads lines "NR ARG0 ARG1 ARG2" and prints for each what became of a child that made the call under the filter: "SIG n",
    // or "RET errno".
    private const string Source =
        """
        #define _GNU_SOURCE
        #include <errno.h>
        #include <fcntl.h>
        #include <linux/filter.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/prctl.h>
        #include <sys/syscall.h>
        #include <sys/wait.h>
        #include <unistd.h>
        int main(int argc, char **argv)
        {
            static struct sock_filter code[4096];
            int file = open(argv[1], O_RDONLY);
            struct sock_fprog program = { read(file, code, sizeof(code)) / sizeof(code[0]), code };
            long long nr, a, b, c;
            while (scanf("%lli %lli %lli %lli", &nr, &a, &b, &c) == 4) {
                int answer[2];
                pipe(answer);
                fflush(stdout);
                pid_t child = fork();
                if (child == 0) {
                    int values[1];
                    alarm(1);
                    dup2(answer[1], 63);
                    // Some of the calls change what descriptor 0 is; it is nobody else's.
                    int own[2];
                    pipe(own);
                    dup2(own[0], 0);
                    for (int i = 3; i < 63; i++) close(i);
                    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                    if (syscall(SYS_seccomp, 1, 0, &program)) abort();
                    long result = syscall(nr, a, b, c, 0, 0, 0);
                    values[0] = result < 0 ? errno : 0;
                    write(63, values, sizeof(values));
                    _exit(0);
                }
                close(answer[1]);
                int status, value = -1;
                if (read(answer[0], &value, sizeof(value)) <= 0) value = -1;
                close(answer[0]);
                waitpid(child, &status, 0);
                if (WIFSIGNALED(status)) printf("SIG %d\n", WTERMSIG(status));
                else printf("RET %d\n", value);
            }
            return 0;
        }
        """;

    private const int BadSystemCall = 31;
    private const int HighestNumber = 480;

    [Fact]
    public void Every_call_that_is_not_on_the_list_ends_the_process_and_no_other_does()
    {
        int[] allowed = [.. SystemCallList.Allowed.Select(call => call.Number)];
        int[] examined = [.. SystemCallList.Examined.Select(call => call.Number)];
        // Those that do not come back, or not at once, whatever the filter.
        string[] endless = ["exit", "exit_group", "rt_sigreturn", "restart_syscall"];
        int[] skipped = [.. SystemCallList.Allowed.Where(call => endless.Contains(call.Name)).Select(call => call.Number)];
        // uretprobe and uprobe of x86-64: the kernel's own trampolines make them, and newer kernels do not ask a filter about them.
        int[] unfiltered = [335, 336];
        int[] numbers = [.. Enumerable.Range(0, HighestNumber).Except(skipped).Except(examined).Except(unfiltered)];

        string[] answers = Ask(SeccompAction.Kill, mayExecuteMemory: false, numbers.Select(number => $"{number} 0 0 0"));

        var wrong = new List<string>();
        for (int i = 0; i < numbers.Length; i++)
        {
            bool isKilled = answers[i] == $"SIG {BadSystemCall}";
            if (isKilled == allowed.Contains(numbers[i]))
            {
                wrong.Add($"{numbers[i]}: {answers[i]}");
            }
        }

        Assert.Empty(wrong);
    }

    [Theory]
    [InlineData("unshare", 0x200, 0, 0, "RET 0")]
    [InlineData("unshare", 0x10000000, 0, 0, "SIG 31")]
    [InlineData("unshare", 0x20200, 0, 0, "SIG 31")]
    [InlineData("clone", 17, 0, 0, "SIG 31")]
    [InlineData("clone", 0x10000011, 0, 0, "SIG 31")]
    [InlineData("clone", 0x10010900, 0, 0, "SIG 31")]
    [InlineData("clone3", 0, 0, 0, "RET 38")]
    [InlineData("tgkill", 1, 1, 0, "SIG 31")]
    [InlineData("tgkill", 4242, 4242, 0, "RET 3")]
    [InlineData("kill", 1, 0, 0, "SIG 31")]
    [InlineData("kill", -1, 0, 0, "SIG 31")]
    [InlineData("kill", 4242, 0, 0, "RET 3")]
    [InlineData("connect", 0, 0, 0, "RET 13")]
    [InlineData("prctl", 22, 0, 0, "SIG 31")]
    [InlineData("prctl", 28, 0, 0, "RET 1")]
    [InlineData("prctl", 27, 0, 0, "RET 0")]
    [InlineData("fcntl", 0, 8, 1, "RET 22")]
    [InlineData("fcntl", 0, 3, 0, "RET 0")]
    [InlineData("ioctl", 0, 0x5412, 0, "RET 25")]
    [InlineData("prlimit64", 0, 7, 0, "RET 0")]
    [InlineData("prlimit64", 0, 7, 0x100000000, "SIG 31")]
    [InlineData("prlimit64", 0, 7, 1, "SIG 31")]
    [InlineData("mmap", 0, 4096, 5, "SIG 31")]
    [InlineData("mmap", 0, 0, 3, "RET 22")]
    [InlineData("mprotect", 0, 4096, 4, "SIG 31")]
    [InlineData("mprotect", 0, 0, 1, "RET 0")]
    [InlineData("open_tree", -1, 0, 0x81000, "RET 14")]
    [InlineData("open_tree", -1, 0, 0x81001, "SIG 31")]
    [InlineData("open_tree", -1, 0, 0x80000, "SIG 31")]
    public void Arguments_decide_where_they_have_to(string call, long first, long second, long third, string expected) =>
        Assert.Equal(
            expected,
            Assert.Single(Ask(
                SeccompAction.Kill, mayExecuteMemory: false, [$"{SystemCallList.Find(call)} {first} {second} {third}"])));

    [Theory]
    [InlineData(15, false, "RET 22")]
    [InlineData(10, false, "RET 22")]
    [InlineData(1040, false, "RET 22")]
    [InlineData(15, true, "RET 9")]
    [InlineData(10, true, "RET 9")]
    [InlineData(1040, true, "RET 9")]
    [InlineData(8, true, "RET 22")]
    public void What_makes_signals_is_there_only_for_delegations(int command, bool takesDelegations, string expected) =>
        Assert.Equal(
            expected,
            Assert.Single(Ask(
                SeccompAction.Kill, mayExecuteMemory: false, [$"{SystemCallList.Find("fcntl")} -1 {command} 0"], takesDelegations)));

    [Fact]
    public void Calls_of_another_architecture_end_the_process()
    {
        Assert.SkipUnless(RuntimeInformation.ProcessArchitecture == Architecture.X64, "NOT CHECKED: x32 is x86-64's");
        Assert.Equal(
            $"SIG {BadSystemCall}", Assert.Single(Ask(SeccompAction.Kill, mayExecuteMemory: false, [$"{0x40000000 + 39} 0 0 0"])));
    }

    [Fact]
    public void A_ring_can_be_used_and_none_can_be_made()
    {
        // io_uring_setup, io_uring_enter, io_uring_register with IORING_REGISTER_ENABLE_RINGS and with another.
        string[] calls = ["425 0 0 0", "426 -1 0 0", "427 -1 12 0", "427 -1 11 0"];
        Assert.Equal(
            ["SIG 31", "RET 9", "RET 22", "SIG 31"],
            calls.Select(call => Assert.Single(Ask(SeccompAction.Kill, mayExecuteMemory: false, [call], hasRing: true))));
        Assert.All(calls, call => Assert.Equal(
            "SIG 31", Assert.Single(Ask(SeccompAction.Kill, mayExecuteMemory: false, [call]))));
    }

    [Fact]
    public void The_action_is_the_one_that_was_asked_for()
    {
        string socket = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? "41 1 1 0" : "198 1 1 0";
        Assert.Equal("SIG 31", Assert.Single(Ask(SeccompAction.Kill, mayExecuteMemory: false, [socket])));
        Assert.Equal("SIG 31", Assert.Single(Ask(SeccompAction.Trap, mayExecuteMemory: false, [socket])));
        Assert.Equal("RET 0", Assert.Single(Ask(SeccompAction.Log, mayExecuteMemory: false, [socket])));
    }

    [Fact]
    public void Numbers_are_those_of_the_system_headers()
    {
        Assert.SkipUnless(CProgram.HasCompiler, "NOT CHECKED: there is no C compiler (cc); install gcc and libc6-dev");
        SystemCall[] calls = [.. SystemCallList.Allowed, .. SystemCallList.ForCompiler, .. SystemCallList.Examined];
        IEnumerable<string> lines = calls.Select(call => string.Create(
            CultureInfo.InvariantCulture,
            $"""
            #ifdef SYS_{call.Name}
            if (SYS_{call.Name} != {call.Number}) puts("{call.Name}");
            #endif
            """));
        using var program = new CProgram(
            $"#include <stdio.h>\n#include <sys/syscall.h>\nint main(void)\n{{\n{string.Join('\n', lines)}\nreturn 0;\n}}\n");

        Assert.Equal((0, string.Empty), program.Run());
        Assert.Equal(calls.Length, calls.Select(call => call.Name).Distinct().Count());
    }

    private static string[] Ask(
        SeccompAction action,
        bool mayExecuteMemory,
        IEnumerable<string> calls,
        bool takesDelegations = false,
        bool hasRing = false)
    {
        Assert.SkipUnless(CProgram.HasCompiler, "NOT CHECKED: there is no C compiler (cc); install gcc and libc6-dev");
        FilterInstruction[] filter = SeccompFilter.Write(action, process: 4242, mayExecuteMemory, takesDelegations, hasRing);
        using var program = new CProgram(Source);
        string file = Path.Combine(program.Folder, "filter");
        string input = Path.Combine(program.Folder, "calls");
        File.WriteAllBytes(file, MemoryMarshal.AsBytes<FilterInstruction>(filter).ToArray());
        File.WriteAllLines(input, calls);
        var start = new System.Diagnostics.ProcessStartInfo("/bin/sh", ["-c", $"exec '{program.Path}' '{file}' <'{input}'"])
        {
            RedirectStandardOutput = true,
        };
        using System.Diagnostics.Process process = System.Diagnostics.Process.Start(start)!;
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
    }
}
