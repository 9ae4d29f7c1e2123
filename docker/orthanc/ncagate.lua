-- Orthanc sends every series of images to ncagate as soon as it is complete, and again when slices were added to it.
-- ncagate puts its results (SEG, SR) into the same study; they are no images, so they are not sent again.
--
-- Settings: section "Ncagate" of orthanc.json. The log names series by Orthanc's own identifiers, never patients.

local SEND = {
  stow = '/dicom-web/servers/ncagate/stow', -- STOW-RS, by the DICOMweb plugin
  cstore = '/modalities/NCAGATE/store' -- C-STORE
}
local NO_IMAGES = 'SEG SR PR KO RTSTRUCT RTPLAN RTDOSE RTRECORD PLAN REG FID RWV DOC AU ECG HD EPS'
local LONGEST_PAUSE_S = 3600 -- before another try; the first is a setting, and every failure doubles it

local configuration = GetOrthancConfiguration()
local settings = configuration['Ncagate'] or {}
local uri = SEND[settings['Kind']]
local owed = {} -- series -> how often it failed, and when to try again
local sending = {} -- job -> its series, and the state of it that is sent

local function words(text)
  local found, count = {}, 0
  for word in string.gmatch(text or '', '[^%s,]+') do
    found[string.upper(word)] = true
    count = count + 1
  end
  return found, count
end

local no_images = words(NO_IMAGES)
local wanted, choosy = words(settings['Modalities'])

if uri == nil then
  error('ncagate: "Kind" is neither "stow" nor "cstore" (NCAGATE_KIND)')
end
if (configuration['RegisteredUsers'] or {})['ncagate'] == '' then
  error('ncagate: the user "ncagate" has no password (ORTHANC_PASSWORD)')
end

local function is_wanted(modality)
  return not no_images[modality] and (choosy == 0 or wanted[modality] == true)
end

local function failed(series)
  local failures = (owed[series] or { failures = 0 }).failures + 1
  local pause = math.min(settings['RetryAfterS'] * 2 ^ (failures - 1), LONGEST_PAUSE_S)
  owed[series] = { failures = failures, after = os.time() + pause }
  print('ncagate: series ' .. series .. ' could not be sent; it is tried again')
end

local function send(series)
  local state = RestApiGet('/series/' .. series .. '/metadata/LastUpdate')
  if state == nil then -- deleted meanwhile
    owed[series] = nil
    return
  end
  local answer = RestApiPost(uri, DumpJson({ Resources = { series }, Asynchronous = true }))
  local job = answer and ParseJson(answer)['ID']
  if job == nil then
    failed(series)
  else
    sending[job] = { series = series, state = state }
  end
end

local function send_owed()
  for series, try in pairs(owed) do
    if os.time() >= try.after then
      try.after = os.time() + LONGEST_PAUSE_S -- until its job has ended
      send(series)
    end
  end
end

function OnStableSeries(series, tags, metadata)
  if is_wanted(string.upper(tags['Modality'] or '')) and metadata['ncagate'] ~= metadata['LastUpdate'] then
    send(series)
  end
  send_owed()
end

function OnJobSuccess(job)
  local sent = sending[job]
  if sent ~= nil then
    sending[job], owed[sent.series] = nil, nil
    RestApiPut('/series/' .. sent.series .. '/metadata/ncagate', sent.state)
    print('ncagate: series ' .. sent.series .. ' sent')
  end
end

function OnJobFailure(job)
  local sent = sending[job]
  if sent ~= nil then
    sending[job] = nil
    failed(sent.series)
  end
end

function OnHeartBeat() -- Orthanc 1.11.1 and later; before, the next series to become stable has to do
  send_owed()
end
