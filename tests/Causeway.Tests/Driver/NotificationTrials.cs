using System.Diagnostics;
using System.Globalization;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Driver;

/// <summary>A thousand changes on the host, seen by whoever keeps everything it knows until it is told otherwise.</summary>
/// <param name="share">The directory, served by a daemon that reports changes.</param>
/// <param name="read">What a file contains, as it is seen; null when there is no such file.</param>
/// <param name="lookAtTime">When a file was changed, as it is seen, in UTC.</param>
/// <param name="output">Where the delays go.</param>
internal sealed class NotificationTrials(
    TemporaryDirectory share, Func<string, Task<string?>> read, Func<string, Task<DateTime>> lookAtTime, ITestOutputHelper output)
{
    private const int Trials = 1000;

    // For a machine with far more to do than it can; what is measured is printed.
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    public async Task RunAsync(string how)
    {
        Directory.CreateDirectory(share.File("d"));
        File.WriteAllText(share.File("d/file"), "0");
        Assert.Equal("0", await read("d/file"));
        var delays = new List<double>();
        for (int i = 1; i <= Trials; i++)
        {
            (Action change, Func<Task<bool>> isSeen) = Trial(i);

            // What is known from this look on would be kept.
            Assert.False(await isSeen(), $"trial {i} is seen before it happens");
            change();
            var watch = Stopwatch.StartNew();
            while (!await isSeen())
            {
                Assert.True(watch.Elapsed < s_patience, $"trial {i} is not seen");
                await Task.Yield();
            }

            delays.Add(watch.Elapsed.TotalMilliseconds);
        }

        delays.Sort();
        output.WriteLine(
            $"{how}: {Trials} of {Trials} seen; median {delays[Trials / 2]:F2} ms, 99 % {delays[Trials * 99 / 100]:F2} ms, "
            + $"longest {delays[^1]:F2} ms, {delays.Count(delay => delay < 50)} within 50 ms");
    }

    private (Action Change, Func<Task<bool>> IsSeen) Trial(int i)
    {
        string text = i.ToString(CultureInfo.InvariantCulture);
        string name = (i - 1).ToString(CultureInfo.InvariantCulture);
        var time = new DateTime(2000 + (i % 20), 1, 1, 0, 0, 0, DateTimeKind.Utc);
        return (i % 4) switch
        {
            0 => (
                () => File.WriteAllText(share.File("d/file"), text),
                async () => await read("d/file") == text),
            1 => (
                () => File.WriteAllText(share.File($"d/new{text}"), text),
                async () => await read($"d/new{text}") == text),
            2 => (
                () => File.Move(share.File($"d/new{name}"), share.File("d/file"), overwrite: true),
                async () => await read($"d/new{name}") is null && await read("d/file") == name),
            _ => (
                () => File.SetLastWriteTimeUtc(share.File("d/file"), time),
                async () => await lookAtTime("d/file") == time),
        };
    }
}
