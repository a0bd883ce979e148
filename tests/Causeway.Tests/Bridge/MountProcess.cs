using System.Diagnostics;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Bridge;

/// <summary><c>causeway mount</c> in a process of its own, on a directory that is gone after the test.</summary>
internal sealed class MountProcess : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private readonly List<string> _log = [];
    private readonly ManualResetEventSlim _isReady = new();
    private readonly TemporaryDirectory? _ownDirectory;
    private readonly FuseIoUring? _uring;
    private readonly Thread _reader;
    private volatile bool _isMounted;

    private MountProcess(Process process, string path, TemporaryDirectory? ownDirectory, FuseIoUring? uring)
    {
        _uring = uring;
        Process = process;
        Path = path;
        _ownDirectory = ownDirectory;
        _reader = new Thread(ReadLog) { IsBackground = true, Name = "mount-log" };
        _reader.Start();
    }

    public Process Process { get; }

    public string Path { get; }

    public string Log
    {
        get
        {
            lock (_log)
            {
                return string.Join('\n', _log);
            }
        }
    }

    /// <summary>Whether this machine lets the test mount; the reason why not.</summary>
    public static string? Obstacle => !System.IO.File.Exists("/dev/fuse")
        ? "NOT TESTED: there is no /dev/fuse; load the module 'fuse', or give the container the device"
        : Environment.UserName != "root" ? "NOT TESTED: mounting needs root" : null;

    /// <summary>Mounts a share and waits until the mount can be used.</summary>
    /// <param name="socket">The daemon's socket.</param>
    /// <param name="options">What follows <c>-o</c>.</param>
    /// <param name="path">Where; a new directory when null.</param>
    /// <param name="prefix">What the command line starts with: a program that starts the program.</param>
    public static MountProcess Start(string socket, string options = "", string? path = null, string prefix = "")
    {
        MountProcess mount = Launch(socket, options, path, prefix);
        mount.AwaitReady();
        Assert.True(mount._uring is null || mount.Log.Contains("over io_uring", StringComparison.Ordinal), mount.Log);
        return mount;
    }

    /// <summary>Waits until the mount can be used; disposes of it when it never can.</summary>
    public void AwaitReady()
    {
        if (!_isReady.Wait(s_patience) || !_isMounted)
        {
            string log = Log;
            Dispose();
            throw new InvalidOperationException($"the mount does not get ready: {log}");
        }
    }

    /// <summary>The same without waiting.</summary>
    public static MountProcess Launch(string socket, string options = "", string? path = null, string prefix = "")
    {
        FuseIoUring? uring = FuseIoUring.For(options);
        TemporaryDirectory? directory = path is null ? new TemporaryDirectory() : null;
        path ??= directory!.Path;
        string list = options.Length > 0 ? $"-o {options}" : "";
        var start = new ProcessStartInfo(
            "/bin/sh", ["-c", $"exec {prefix} '{DaemonProcess.Program}' mount '{socket}' '{path}' {list}"])
        {
            RedirectStandardError = true,
            RedirectStandardInput = true,
            WorkingDirectory = "/",
        };
        return new MountProcess(Process.Start(start)!, path, directory, uring);
    }

    public string File(string name) => System.IO.Path.Combine(Path, name);

    /// <summary>The line of /proc/mounts, or null.</summary>
    public string? MountLine => LineOf("/proc/mounts");

    /// <summary>The same as the process sees it, while it runs.</summary>
    public string? OwnMountLine => LineOf($"/proc/{Process.Id}/mounts");

    private string? LineOf(string file) => System.IO.File.ReadLines(file)
        .LastOrDefault(line => line.Split(' ')[1] == Path);

    public void Signal(int signal) => Shell.Run("/", $"kill -{signal} {Process.Id}");

    /// <summary>Waits for the end of the process.</summary>
    /// <returns>The exit status.</returns>
    public int AwaitEnd()
    {
        Assert.True(Process.WaitForExit(s_patience), $"the mount does not end: {Log}");
        _reader.Join();
        return Process.ExitCode;
    }

    public void Dispose()
    {
        if (!Process.HasExited)
        {
            Shell.Try("/", $"kill -15 {Process.Id}");
            if (!Process.WaitForExit(s_patience))
            {
                Process.Kill();
                Process.WaitForExit();
            }
        }

        // Whatever is left: the directory must be empty and free to be removed.
        while (MountLine is not null)
        {
            using Process unmount = Process.Start("umount", ["-l", Path]);
            unmount.WaitForExit();
            Assert.Equal(0, unmount.ExitCode);
        }

        _reader.Join();
        Process.Dispose();
        _isReady.Dispose();
        _ownDirectory?.Dispose();
        _uring?.Dispose();
    }

    private void ReadLog()
    {
        while (Process.StandardError.ReadLine() is { } line)
        {
            lock (_log)
            {
                _log.Add(line);
            }

            if (line.Contains("is mounted on", StringComparison.Ordinal))
            {
                _isMounted = true;
                _isReady.Set();
            }
        }

        _isReady.Set();
    }
}
