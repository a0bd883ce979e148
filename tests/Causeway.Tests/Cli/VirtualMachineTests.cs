using System.Diagnostics;
using Causeway.Cli;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Cli;

/// <summary><c>causeway vm</c>, with a script in QEMU's place.</summary>
public sealed class VirtualMachineTests
{
    [Fact]
    public void The_printed_lines_are_those_of_the_manual()
    {
        using TemporaryDirectory share = new();
        string folder = Directory.CreateDirectory(share.File("it's, shared")).FullName;
        string quoted = folder.Replace("'", "'\\''", StringComparison.Ordinal);
        (int status, string output, _) = Run("vm", "--print", "--qemu", "/bin/true", folder, "--", "-kernel", "vmlinuz", "-append", "a b");
        Assert.Equal(0, status);
        Assert.Equal(
            $"{DaemonProcess.Program} serve --shared-dir '{quoted}' --socket-path /tmp/causeway-vm/share.sock --num-request-queues 1 --tag causeway\n"
            + "/bin/true -accel kvm -accel tcg -cpu max -smp 2 -m 1G -object memory-backend-memfd,id=memory,size=1G,share=on "
            + "-machine q35,memory-backend=memory -chardev socket,id=share,path=/tmp/causeway-vm/share.sock "
            + "-device vhost-user-fs-pci,chardev=share,tag=causeway,num-request-queues=1,queue-size=1024 -kernel vmlinuz -append 'a b'\n",
            output);

        (_, output, _) = Run(
            "vm", "--print", "--qemu", "/bin/true", "--window", "64M", "--tag", "data", "--num-request-queues", "2", "--memory", "4G", share.Path);
        Assert.Contains("--num-request-queues 2 --tag data --exclusive --dax=64M\n", output, StringComparison.Ordinal);
        Assert.EndsWith(
            "-device vhost-user-test-device-pci,chardev=share,virtio-id=26,num_vqs=3,config_size=40,vq_size=1024\n",
            output,
            StringComparison.Ordinal);
        (_, output, _) = Run("vm", "--print", "--qemu", "/bin/true", "--dax", share.Path);
        Assert.Contains("--dax=256M", output, StringComparison.Ordinal);
    }

    [Fact]
    public void QEMU_is_started_once_the_daemon_listens_and_its_status_is_ours()
    {
        using TemporaryDirectory share = new();
        string qemu = Script(share, """
            [ "$1" != -device ] || { echo "${2%,help} options:"; exit; }
            for word; do case $word in socket,*) socket=${word##*path=};; esac; done
            [ -S "$socket" ] || exit 1
            echo "this is QEMU"
            exit 7
            """);
        (int status, string output, string error) = Run("vm", "--dax", "--qemu", qemu, share.Path);
        Assert.Equal("this is QEMU\n", output);
        Assert.Equal(7, status);
        Assert.Contains("mount -t virtiofs causeway", error, StringComparison.Ordinal);
        Assert.Contains("nobody else may shorten a file", error, StringComparison.Ordinal);
        string socket = error.Split(' ', '\n').First(word => word.EndsWith("/share.sock", StringComparison.Ordinal));
        Assert.False(Directory.Exists(Path.GetDirectoryName(socket)));
    }

    [Fact]
    public void What_is_missing_is_said_with_what_to_do()
    {
        using TemporaryDirectory share = new();
        string old = Script(share, "test \"$1\" = -device && echo \"$0: $1 $2: Device not found\" >&2 && exit 0; exit 1");
        Fails("DAX takes QEMU 11.1", "vm", "--dax", "--qemu", old, share.Path);
        Fails("install QEMU, or name its program by '--qemu'", "vm", "--qemu", "no-such-qemu", share.Path);
        Fails("does not start", "vm", "--qemu", "/etc/passwd", share.Path);
        Fails("does not start", "vm", "--dax", "--qemu", "/etc/passwd", share.Path);
        Fails("is not a directory", "vm", "--qemu", old, share.File("nothing"));
        Fails("the daemon has ended with status", "vm", "--qemu", old, "--tag", new string('x', 99), share.Path);
    }

    private static void Fails(string message, params string[] arguments)
    {
        (int status, string output, string error) = Run(arguments);
        Assert.Contains(message, error, StringComparison.Ordinal);
        Assert.NotEqual(ExitStatus.Success, status);
        Assert.Empty(output);
    }

    private static string Script(TemporaryDirectory directory, string text)
    {
        string path = directory.File("qemu");
        File.WriteAllText(path, $"#!/bin/sh\n{text}\n");
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        return path;
    }

    private static (int Status, string Output, string Error) Run(params string[] arguments)
    {
        var start = new ProcessStartInfo(DaemonProcess.Program, arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(start)!;
        process.StandardInput.Close();
        Task<string> error = process.StandardError.ReadToEndAsync();
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Assert.True(process.WaitForExit(TimeSpan.FromSeconds(60)));
        return (process.ExitCode, output.GetAwaiter().GetResult(), error.GetAwaiter().GetResult());
    }
}
